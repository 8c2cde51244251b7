# What the scripts share: is everything there, and is everything taken away again. Sourced, not run.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# need PROGRAM PACKAGE...: installs what is missing when it may, otherwise says what is missing.
need_packages() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    say "installing ${missing[*]}"
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${missing[@]}" >&2 ||
      die "installing ${missing[*]} failed"
  else
    die "missing: ${missing[*]} (Debian's package names). Install them and try again."
  fi
}

need_fuse() {
  [ -e /dev/fuse ] || die "/dev/fuse is missing: load the module (modprobe fuse), or give the container
--device /dev/fuse --cap-add SYS_ADMIN."
  [ -r /dev/fuse ] && [ -w /dev/fuse ] || die "/dev/fuse is not yours to open: as root, chmod 666 /dev/fuse."
}

need_cargo() {
  command -v cargo > /dev/null || { [ -f ~/.cargo/env ] && . ~/.cargo/env; }
  command -v cargo > /dev/null || die "cargo is missing: install Rust 1.95 or newer from https://rustup.rs and try again."
}

# The conformance suite that tests/mount/posix.rs runs, in target/tools: once.
need_suite() {
  local version=0.2.2
  [ "$(target/tools/bin/pjdfstest --version 2> /dev/null)" = "pjdfstest $version" ] && return 0
  [ -e /usr/include/sys/acl.h ] || need_packages no-program:libacl1-dev
  say "installing pjdfstest $version"
  cargo install --quiet --locked --root target/tools --version $version pjdfstest || die "pjdfstest could not be installed"
}

# The programs that tests/clients/package.json names, in target/programs: once, and again when it changes.
need_programs() {
  local into=target/programs
  cmp -s tests/clients/package.json "$into/installed.json" && return 0
  say "installing the programs of tests/clients/package.json"
  mkdir -p "$into" && cp tests/clients/package.json "$into/" &&
    (cd "$into" && npm install --no-package-lock --no-audit --no-fund --loglevel=error >&2 &&
      node node_modules/@anthropic-ai/claude-code/install.cjs >&2) &&
    "$into/node_modules/.bin/claude" --version >&2 &&
    cp tests/clients/package.json "$into/installed.json" || die "npm could not install them"
}

# The FUSE mounts under a folder, one per line.
fuse_mounts_under() { awk -v under="$1/" '/ - fuse/ && index($5, under) == 1 { print $5 }' /proc/self/mountinfo; }

# Takes a mount away whatever state it is in.
take_away() {
  mountpoint -q "$1" 2> /dev/null || grep -q " $1 " /proc/self/mountinfo || return 0
  "$BATON" umount "$1" > /dev/null 2>&1 || fusermount3 -uz "$1" 2> /dev/null || umount -l "$1"
}
