//! Every trick that would change what a log already says, one test each: refused, and nothing changed.

use crate::common::{Fixture, Mount};

const LOG: &str = "inbox/alice.jsonl";

/// An exchange in which alice's inbox holds two lines, mounted as bob; it must hold exactly them after.
struct WrittenLog {
    fixture: Fixture,
    bob: Mount,
    content: String,
}

impl WrittenLog {
    fn new() -> Self {
        let fixture = Fixture::new();
        let bob = fixture.mount_as("bob");
        bob.bash("line bob one >> inbox/alice.jsonl && line bob two >> inbox/alice.jsonl").ok();
        let content = bob.read(LOG);
        assert_eq!(content.lines().count(), 2);
        WrittenLog { fixture, bob, content }
    }

    #[track_caller]
    fn is_unchanged(&self) {
        assert_eq!(self.bob.read(LOG), self.content, "through the mount");
        assert_eq!(std::fs::read_to_string(self.fixture.dir().join(LOG)).unwrap(), self.content, "on disk");
    }
}

macro_rules! bash_tricks {
    ($($name:ident: $script:expr => $text:literal, $rule:literal;)*) => {$(
        #[test]
        fn $name() {
            let log = WrittenLog::new();
            log.bob.refuses($script, $text, $rule);
            log.is_unchanged();
        }
    )*};
}

bash_tricks! {
    append_only_refuses_redirection: "line bob > inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_emptying: ": > inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_truncate: "truncate -s 0 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_truncate_to_more: "truncate -s +100 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_tee_without_a: "line bob | tee inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_dd: "line bob | dd of=inbox/alice.jsonl status=none" => "Operation not permitted", "append-only";
    append_only_refuses_dd_notrunc: "line bob | dd of=inbox/alice.jsonl conv=notrunc status=none"
        => "Operation not permitted", "append-only";
    append_only_refuses_cp: "line bob > $SCRATCH/new; cp $SCRATCH/new inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
    append_only_refuses_reading_and_writing: "exec 3<> inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_unlink: "rm -f inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_rename_away: "mv inbox/alice.jsonl inbox/old.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_rename_to_another_log: "mv inbox/carol.jsonl inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
    append_only_refuses_hard_link: "ln inbox/alice.jsonl inbox/other.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_fallocate: "fallocate -l 65536 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_punching_holes: "fallocate -p -o 0 -l 10 inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
    append_only_refuses_chmod: "chmod 0777 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_chown: "chown 1:1 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_setting_times: "touch -d 2001-01-01 inbox/alice.jsonl" => "Operation not permitted", "append-only";
    append_only_refuses_setfattr: "setfattr -n user.note -v x inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
    read_only_refuses_sed_in_place: "sed -i s/one/six/ inbox/alice.jsonl" => "Operation not permitted", "read-only";
    read_only_refuses_a_symlink_beside_it: "ln -s alice.jsonl inbox/zoe.jsonl" => "Operation not permitted", "read-only";
    read_only_refuses_new_files: "echo x > inbox/note.txt" => "Operation not permitted", "read-only";
    read_only_refuses_new_folders: "mkdir inbox/2024" => "Operation not permitted", "read-only";
    append_only_holds_under_coordination: ": > _coordination/inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
    append_only_refuses_unlink_under_coordination: "rm -f _coordination/inbox/alice.jsonl"
        => "Operation not permitted", "append-only";
}

macro_rules! python_tricks {
    ($($name:ident: $script:expr => $text:literal, $rule:literal;)*) => {$(
        #[test]
        fn $name() {
            let log = WrittenLog::new();
            let program = format!("import os, fcntl, mmap\nlog = {LOG:?}\n{}", $script);
            log.bob.refuses_python(&program, $text, $rule);
            log.is_unchanged();
        }
    )*};
}

python_tricks! {
    append_only_refuses_o_rdwr: "os.open(log, os.O_RDWR)" => "Operation not permitted", "append-only";
    append_only_refuses_o_rdwr_with_append: "open(log, 'a+')" => "Operation not permitted", "append-only";
    append_only_refuses_o_trunc: "open(log, 'w')" => "Operation not permitted", "append-only";
    append_only_refuses_o_trunc_for_readers: "os.open(log, os.O_RDONLY | os.O_TRUNC)"
        => "Operation not permitted", "append-only";
    append_only_refuses_ftruncate: "os.ftruncate(os.open(log, os.O_WRONLY | os.O_APPEND), 5)"
        => "Operation not permitted", "append-only";
    append_only_refuses_pwrite_before_the_end: "os.pwrite(os.open(log, os.O_WRONLY), b'{}', 0)"
        => "Operation not permitted", "append-only";
    append_only_refuses_pwrite_past_the_end:
        "os.pwrite(os.open(log, os.O_WRONLY), b'{}', os.stat(log).st_size + 10)"
        => "Operation not permitted", "append-only";
    append_only_refuses_writing_after_a_seek:
        "fd = os.open(log, os.O_WRONLY); os.lseek(fd, 3, os.SEEK_SET); os.write(fd, b'{}')"
        => "Operation not permitted", "append-only";
    append_only_refuses_pwrite_after_dropping_o_append:
        "fd = os.open(log, os.O_WRONLY | os.O_APPEND); fcntl.fcntl(fd, fcntl.F_SETFL, 0); os.pwrite(fd, b'{}', 0)"
        => "Operation not permitted", "append-only";
    append_only_refuses_posix_fallocate:
        "os.posix_fallocate(os.open(log, os.O_WRONLY | os.O_APPEND), 0, 65536)"
        => "Operation not permitted", "append-only";
    append_only_refuses_os_replace: "os.replace('inbox/carol.jsonl', log)"
        => "Operation not permitted", "append-only";
}

#[test]
fn a_log_cannot_be_mapped_for_writing() {
    let log = WrittenLog::new();
    // The kernel's own answer: a descriptor without O_RDWR cannot be mapped shared and writable.
    for flags in ["os.O_RDONLY", "os.O_WRONLY | os.O_APPEND"] {
        let program = format!(
            "import mmap, os; mmap.mmap(os.open({LOG:?}, {flags}), 100, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)"
        );
        log.bob.python(&program).failed_with("Permission denied");
    }
    log.is_unchanged();
}

#[test]
fn a_log_can_be_mapped_for_reading() {
    let log = WrittenLog::new();
    let program = format!(
        "import mmap; f = open({LOG:?}, 'rb'); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(m[:].decode(), end='')"
    );
    assert_eq!(log.bob.python(&program).ok(), log.content);
}

#[test]
fn no_pipe_or_device_can_be_made() {
    let log = WrittenLog::new();
    log.bob.bash("mkfifo inbox/pipe").failed_with("Operation not permitted");
    log.bob.bash("mknod credentials/null c 1 3").failed_with("Operation not permitted");
    log.is_unchanged();
}

#[test]
fn touching_a_log_harms_nothing() {
    let log = WrittenLog::new();
    // Programs touch logs to make sure they exist; whether the time moves is not theirs to rely on.
    log.bob.bash("touch -c inbox/alice.jsonl");
    log.is_unchanged();
}

#[test]
fn node_reads_the_text_of_a_refused_truncation() {
    let log = WrittenLog::new();
    log.bob.refuses_node(
        "require('fs').writeFileSync('inbox/alice.jsonl', 'x')",
        "EPERM: operation not permitted",
        "append-only",
    );
    log.bob.refuses_node(
        "require('fs').unlinkSync('inbox/alice.jsonl')",
        "EPERM: operation not permitted",
        "append-only",
    );
    log.is_unchanged();
}

#[test]
fn root_is_no_exception() {
    let log = WrittenLog::new();
    let operator = log.fixture.mount_as_operator();
    operator.refuses(": > inbox/alice.jsonl", "Operation not permitted", "append-only");
    operator.refuses("rm -f inbox/alice.jsonl", "Operation not permitted", "append-only");
    log.is_unchanged();
}

#[test]
fn read_only_protects_what_the_exchange_writes() {
    let fixture = Fixture::new();
    let bob = fixture.mount_as("bob");
    for file in ["events.jsonl", "refusals.jsonl", "trust.json", "README.md", "PROTOCOL.md"] {
        bob.refuses(&format!("echo x >> {file}"), "Operation not permitted", "read-only");
        bob.refuses(&format!("rm -f {file}"), "Operation not permitted", "read-only");
        bob.refuses(&format!("truncate -s 0 {file}"), "Operation not permitted", "read-only");
        bob.refuses(&format!("mv {file} inbox/"), "Operation not permitted", "read-only");
        bob.refuses(&format!("chmod 666 {file}"), "Operation not permitted", "read-only");
    }
    for folder in ["inbox", "handoff", "claimed", "archive", "rejected", "credentials", "_coordination"] {
        bob.refuses(&format!("rmdir {folder}"), "Operation not permitted", "read-only");
        bob.refuses(&format!("mv {folder} elsewhere"), "Operation not permitted", "read-only");
    }
    bob.refuses("echo x > note.txt", "Operation not permitted", "read-only");
    bob.refuses("mkdir mine", "Operation not permitted", "read-only");
}

#[test]
fn the_private_folder_is_not_in_the_tree() {
    let fixture = Fixture::new();
    for mount in [fixture.mount_as("bob"), fixture.mount_as_operator()] {
        mount.bash("ls private").failed_with("No such file or directory");
        mount.bash("cat private/keys/bob.key").failed_with("No such file or directory");
        mount.bash("cat exchange.toml").failed_with("No such file or directory");
        assert!(!mount.names("").contains(&"private".to_owned()));
    }
}
