//! The tree as files and folders: its two names, and the ordinary files in it.

use crate::common::{Fixture, run};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

#[test]
fn the_tree_answers_under_coordination_with_the_same_files_and_directories_of_their_own() {
    let fixture = Fixture::new();
    let mount = fixture.mount_as_operator();
    let alias = mount.at("_coordination");
    mount.append("inbox/alice.jsonl", &(fixture.line("bob", "one") + "\n"));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    for file in ["inbox/alice.jsonl", "decisions.jsonl", "trust.json"] {
        assert_eq!(fs::read(alias.join(file)).unwrap(), fs::read(mount.at(file)).unwrap());
        assert_eq!(inode(&alias.join(file)), inode(&mount.at(file)));
    }
    for folder in ["", "inbox", "handoff", "credentials", "memory", "memory/bob"] {
        assert_ne!(inode(&alias.join(folder)), inode(&mount.at(folder)));
    }
    assert!(mount.names("").contains(&"_coordination".to_owned()));
    assert!(!mount.names("_coordination").contains(&"_coordination".to_owned()));
    assert!(!alias.join("_coordination").exists());
    fs::create_dir(mount.at("credentials/claude/notes")).unwrap();
    fs::write(alias.join("credentials/claude/notes/a"), "text").unwrap();
    assert_eq!(mount.read("credentials/claude/notes/a"), "text");
    fs::remove_dir_all(alias.join("credentials/claude/notes")).unwrap();
}

#[test]
fn an_ordinary_file_is_read_written_mapped_and_truncated_in_both_modes() {
    for options in [&[][..], &["--no-passthrough"]] {
        let fixture = Fixture::new();
        let mount = fixture.mount_with(options);
        let data = "credentials/claude/work/data";
        fs::create_dir(mount.at("credentials/claude/work")).unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(mount.at(data)).unwrap();
        file.write_all_at(b"hello world", 0).unwrap();
        let mut other = File::open(mount.at(data)).unwrap();
        let mut text = String::new();
        other.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello world");
        file.set_len(5).unwrap();
        assert_eq!(mount.read(data), "hello");
        mount
            .python(&format!(
                "import mmap; f=open('{data}','r+b'); m=mmap.mmap(f.fileno(),0); m[0:1]=b'J'; m.flush(); m.close(); f.close()"
            ))
            .ok();
        assert_eq!(mount.read(data), "Jello");
        mount.append(data, "!");
        assert_eq!(fs::read_to_string(fixture.dir().join(data)).unwrap(), "Jello!");
        fs::rename(mount.at(data), mount.at("credentials/claude/work/moved")).unwrap();
        drop((file, other));
        fs::remove_dir_all(mount.at("credentials/claude/work")).unwrap();
        assert!(!mount.at(data).exists());
    }
}

#[test]
fn a_directory_is_removed_with_all_its_names_while_it_is_being_listed() {
    let fixture = Fixture::new();
    let mount = fixture.mount_as_operator();
    let folder = mount.at("credentials/claude/many");
    fs::create_dir(&folder).unwrap();
    for n in 0..3000 {
        File::create(folder.join(format!("a-file-with-quite-a-long-name-{n}"))).unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3000);
    run(Command::new("rm").arg("-r").arg(&folder), "").ok();
    assert!(!folder.exists());
}
