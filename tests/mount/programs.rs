//! Programs that ask much of a file system, in a profile's folder: databases, git, package managers, watchers. Each runs
//! where the kernel passes reads and writes through to the disk, and where every one of them comes to the daemon.

use crate::common::{Fixture, Mount, Output, run};

/// An exchange whose profile `claude` is the folder that the programs work in.
struct Place {
    fixture: Fixture,
    mounts: Vec<Mount>,
}

impl Place {
    fn new(mount_args: &[&[&str]]) -> Self {
        let fixture = Fixture::new();
        let mounts = mount_args.iter().map(|args| fixture.mount_with(&[&["--as", "bob"], *args].concat()));
        Place { mounts: mounts.collect(), fixture }
    }

    /// Runs a script in the profile, as one sees it through mount `n`.
    fn bash_in(&self, n: usize, script: &str) -> Output {
        let profile = self.mounts[n].at("credentials/claude");
        let script = format!("set -eu\n. {}/prelude.sh\n{script}", crate::common::CLIENTS);
        run(&mut self.fixture.client_command("bash", &["-c", &script], &profile), "")
    }

    fn python_in(&self, n: usize, program: &str) -> Output {
        let profile = self.mounts[n].at("credentials/claude");
        run(&mut self.fixture.client_command("python3", &["-c", program], &profile), "")
    }

    #[track_caller]
    fn is_clean(&self) {
        assert!(self.fixture.refusals().is_empty(), "{:?}", self.fixture.refusals());
        self.fixture.verify();
    }
}

/// Each of `$test` with passthrough and without.
macro_rules! both_ways {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn passed_through() {
                super::checks::$name(&super::Place::new(&[&[]]));
            }
            #[test]
            fn through_the_daemon() {
                super::checks::$name(&super::Place::new(&[&["--no-passthrough"]]));
            }
        }
    )*};
}

both_ways! { sqlite_in_wal_mode git npm fs_watch a_large_folder }

mod checks {
    use super::Place;

    // Four processes write at once; one of them is killed in the middle and the database is whole.
    pub fn sqlite_in_wal_mode(place: &Place) {
        place
            .python_in(
                0,
                r#"
import os, signal, sqlite3, subprocess, sys, time
made = sqlite3.connect("t.db")
assert made.execute("pragma journal_mode=wal").fetchone() == ("wal",)
made.execute("create table t (writer, n)")
made.commit()
writer = '''
import sqlite3, sys
db = sqlite3.connect("t.db", timeout=60)
for n in range(int(sys.argv[2])):
    db.execute("insert into t values (?, ?)", (sys.argv[1], n))
    db.commit()
'''
run = lambda name, count: subprocess.Popen([sys.executable, "-c", writer, name, str(count)])
writers = [run(name, 150) for name in "abc"]
doomed = run("doomed", 1_000_000)
deadline = time.time() + 60
while made.execute("select count(*) from t where writer = 'doomed'").fetchone()[0] < 5:
    assert time.time() < deadline
    time.sleep(0.01)
doomed.kill()
doomed.wait()
assert [w.wait() for w in writers] == [0, 0, 0]
assert made.execute("pragma integrity_check").fetchall() == [("ok",)]
for name in "abc":
    assert made.execute("select count(*), max(n) from t where writer = ?", (name,)).fetchone() == (150, 149)
assert os.path.exists("t.db-wal") and os.path.exists("t.db-shm")
made.execute("pragma wal_checkpoint(truncate)")
made.close()
assert not os.path.exists("t.db-wal"), "the last close takes it away"
"#,
            )
            .ok();
        place.is_clean();
    }

    pub fn git(place: &Place) {
        let script = r#"
            export HOME=$SCRATCH GIT_CONFIG_NOSYSTEM=1
            git config --global user.name bob; git config --global user.email bob@localhost
            git config --global init.defaultBranch main
            git init -q origin && cd origin
            for d in a b c; do mkdir -p $d/deep/er; for n in $(seq 60); do echo "$d $n" > $d/deep/er/$n; done; done
            ln -s a/deep link; echo run > tool; chmod +x tool
            git add -A && git commit -qm one
            for n in 1 2 3; do echo $n >> tool; git commit -qam "change $n"; done
            git checkout -q -b side HEAD~1 && echo side > side && git add side && git commit -qm side
            git checkout -q main && git merge -q --no-edit side
            git stash list; echo dirty >> tool; git stash -q; git stash pop -q; git checkout -q tool
            git gc -q --prune=now && git fsck --strict && git repack -qad
            cd .. && git clone -q origin copy && git clone -q --no-hardlinks origin copy2
            git -C copy fsck --strict && git -C copy log --oneline | wc -l | grep -qx 6
            diff -r --exclude=.git origin copy && diff -r --exclude=.git origin copy2
            [ -L copy/link ] && [ -x copy/tool ]
            git -C copy worktree add -q ../tree side && git -C tree status --short
            for r in origin copy tree; do [ -z "$(git -C $r status --porcelain)" ]; done
            rm -rf origin copy copy2 tree
        "#;
        place.bash_in(0, script).ok();
        place.is_clean();
    }

    // Its packages come with symlinks in node_modules/.bin, files renamed into place and many small reads.
    pub fn npm(place: &Place) {
        let script = r#"
            export HOME=$SCRATCH npm_config_cache=$PWD/cache npm_config_update_notifier=false npm_config_fund=false npm_config_audit=false
            mkdir app && cd app && npm init -y > /dev/null
            npm install semver@7.7.2
            [ "$(node -p 'require("semver").inc("1.2.3", "minor")')" = 1.3.0 ]
            [ "$(node_modules/.bin/semver -i major 1.2.3)" = 2.0.0 ]
            npm install semver@7.7.1 && npm ls semver@7.7.1
            rm -rf node_modules && npm ci --prefer-offline && npm uninstall semver && [ ! -e node_modules/semver ]
        "#;
        place.bash_in(0, script).ok();
        place.is_clean();
    }

    pub fn fs_watch(place: &Place) {
        let program = r#"
            const fs = require("fs");
            fs.mkdirSync("watched");
            const seen = [];
            const watcher = fs.watch("watched", (event, name) => seen.push(event + " " + name));
            const wanted = ["rename made", "change made", "rename moved", "rename gone"];
            const steps = [
              () => fs.writeFileSync("watched/made", "1"),
              () => fs.appendFileSync("watched/made", "2"),
              () => fs.renameSync("watched/made", "watched/moved"),
              () => fs.writeFileSync("watched/gone", ""),
              () => fs.unlinkSync("watched/gone"),
            ];
            const next = () => {
              const step = steps.shift();
              if (step) { step(); return setTimeout(next, 20); }
              const missing = wanted.filter(w => !seen.includes(w));
              if (missing.length === 0) { watcher.close(); return; }
              setTimeout(next, 50);
            };
            setTimeout(() => { console.error("saw only", seen); process.exit(1); }, 20000).unref();
            next();
        "#;
        place.bash_in(0, &format!("node -e '{program}'")).ok();
        place.is_clean();
    }

    // Each of 20,000 names once, also for a reader before whom names come and go.
    pub fn a_large_folder(place: &Place) {
        place
            .python_in(
                0,
                r#"
import os
os.mkdir("many")
for n in range(20_000):
    os.close(os.open(f"many/{n}", os.O_CREAT | os.O_WRONLY))
entries = os.scandir("many")
seen = [next(entries).name for _ in range(100)]
for n in range(0, 20_000, 7):
    os.unlink(f"many/{n}")
seen += [entry.name for entry in entries]
assert len(seen) == len(set(seen)) == 20_000, len(seen)
left = sorted(map(int, os.listdir("many")))
assert left == [n for n in range(20_000) if n % 7], len(left)
assert all(entry.inode() == entry.stat(follow_symlinks=False).st_ino for entry in os.scandir("many"))
"#,
            )
            .ok();
        place.is_clean();
    }
}

// Its locks and its shared memory are one for both mounts, so that neither loses the other's rows.
#[test]
fn one_database_through_two_mounts() {
    for args in [&[][..], &["--no-passthrough"]] {
        let place = Place::new(&[args, args]);
        place
            .python_in(
                0,
                "import sqlite3; d = sqlite3.connect('t.db'); d.execute('create table t (w, n)'); d.commit()",
            )
            .ok();
        let writer = |n: usize| {
            format!(
                "import sqlite3\n\
                 d = sqlite3.connect('t.db', timeout=60, isolation_level=None)\n\
                 for n in range(100):\n    d.execute('begin immediate')\n    \
                     (rows,) = d.execute('select count(*) from t').fetchone()\n    \
                     d.execute('insert into t values ({n}, ?)', (rows,))\n    d.execute('commit')\n"
            )
        };
        std::thread::scope(|scope| {
            for n in 0..2 {
                let (fixture, profile) = (place.fixture.dir(), place.mounts[n].at("credentials/claude"));
                let program = writer(n);
                scope.spawn(move || {
                    let mut command = std::process::Command::new("timeout");
                    command.args(["120", "python3", "-c", &program]).current_dir(&profile);
                    command.env("BATON_EXCHANGE", fixture);
                    run(&mut command, "").ok();
                });
            }
        });
        // Each row holds how many there were before it: a writer that did not see the other's would repeat one.
        place
            .python_in(
                1,
                "import sqlite3; d = sqlite3.connect('t.db'); \
                 assert d.execute('select count(*), count(distinct n), max(n) from t').fetchone() == (200, 200, 199); \
                 assert d.execute('pragma integrity_check').fetchall() == [('ok',)]",
            )
            .ok();
        place.is_clean();
    }
}
