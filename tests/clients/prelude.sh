# What the commands in mount/SEMANTICS.md, the tests and the demo may use besides ordinary programs.
# $EXCHANGE is the exchange's folder, $SCRATCH a folder outside the mount; the current folder is the mount.

# sign AGENT JSON...      the objects as AGENT's signed lines
sign() { local agent=$1; shift; printf '%s\n' "$@" | baton sign --as "$agent"; }

# line AGENT [TEXT]       a signed message that says TEXT
line() { sign "$1" "{\"type\":\"feedback\",\"subject\":\"note\",\"body\":\"${2:-hello}\"}"; }

# propose ID [MEMBERS]    an unsigned proposal in the thread ID; MEMBERS: more of it, as "key":value,...
propose() { echo "{\"type\":\"proposal\",\"subject\":\"$1\",\"body\":\"$RANDOM\",\"correlation_id\":\"$1\"${2:+,$2}}"; }

# ack ID                  an unsigned ack in the thread ID
ack() { echo "{\"type\":\"ack\",\"correlation_id\":\"$1\"}"; }

# incident [ID]           an unsigned incident, in the thread ID
incident() { echo "{\"type\":\"incident\",\"subject\":\"${1:-fire}\",\"body\":\"$RANDOM\"${1:+,\"correlation_id\":\"$1\"}}"; }

# handoff FROM TO [ARG...]    a signed handoff payload; ARGs go to `baton handoff new`
handoff() {
  local from=$1 to=$2; shift 2
  baton handoff new --from "$from" --to "$to" --caller "caller-$RANDOM-$RANDOM" --reason test "$@"
}

# login ACCOUNT [SECONDS]  a Claude credential of ACCOUNT whose access token lives for SECONDS (default: a day)
login() {
  printf '{"claudeAiOauth":{"accessToken":"at-%s","refreshToken":"rt-%s","expiresAt":%s,"scopes":["user:inference","user:profile"],"subscriptionType":"max","rateLimitTier":"default"}}\n' \
    "$1" "$1" "$((($(date +%s) + ${2:-86400}) * 1000))"
}

# tamper FROM TO          changes text on its way (a letter in a signed body, say)
tamper() { sed "s/$1/$2/"; }

# slots                   makes the profile `claude` with the slots a and b, and a live link to a
slots() {
  mkdir -p credentials/claude
  login account-a > credentials/claude/.credentials.json.a
  login account-b > credentials/claude/.credentials.json.b
  ln -s .credentials.json.a credentials/claude/.credentials.json
}
