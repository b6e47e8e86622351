//! Users, and two programs of one of them with streams between them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use convoy_tests::arena::free_port;
use convoy_tests::user::become_user;
use convoy_tests::{Arena, Mode, Service};

/// Whose programs are attacked. Nobody else has this number.
pub const VICTIM: u32 = 47_001;
/// Who attacks.
pub const STRANGER: u32 = 47_002;

/// An arena, where this machine can have other users.
pub fn arena() -> Option<Arena> {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        convoy_tests::hosts::skip("becoming another user needs root");
        return None;
    }
    Some(Arena::new(Mode::Preloaded))
}

/// The command runs as another user.
pub fn as_user(mut command: Command, user: u32) -> Command {
    become_user(&mut command, user, user);
    command
}

/// A copy of a file below a directory that every user can read.
pub fn copied(from: impl AsRef<Path>, to: PathBuf) -> PathBuf {
    fs::copy(from.as_ref(), &to).expect("a copy");
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
    to
}

/// A command that knows nothing of Convoy but its directory.
pub fn plain(arena: &Arena, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = arena.command(program, arguments);
    command.env_remove("LD_PRELOAD");
    command
}

/// What an intruder gets as that user.
pub fn look(arena: &Arena, user: u32, pids: &[u32]) -> Vec<String> {
    let program = copied(convoy_tests::program!("intruder"), arena.path("intruder"));
    let mut words = vec!["look".to_owned(), arena.directory().display().to_string()];
    words.extend(pids.iter().map(u32::to_string));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    got(&arena.run(as_user(plain(arena, program, &words), user)).stdout)
}

/// What an intruder has got. It must have come to its end.
pub fn got(said: &str) -> Vec<String> {
    let tried = said.lines().find_map(|line| line.strip_prefix("tried "));
    assert!(
        tried.is_some_and(|count| count.parse::<u32>().unwrap() > 0),
        "the intruder has tried nothing\n{said}"
    );
    said.lines().filter_map(|line| line.strip_prefix("got ")).map(str::to_owned).collect()
}

/// Two programs of a user with traffic between them.
pub struct Victims<'a> {
    server: Service<'a>,
    client: Service<'a>,
    arena: &'a Arena,
    stop: PathBuf,
}

impl<'a> Victims<'a> {
    /// Whose traffic goes on until the end.
    pub fn start(arena: &'a Arena, user: u32) -> Self {
        let program = copied(convoy_tests::program!("host_stream"), arena.path("host_stream"));
        let (port, stop) = (free_port(), arena.path("stop"));
        let (address, stop_path) = (format!("127.0.0.1:{port}"), stop.display().to_string());
        let start = |name: &str, words: &[&str]| {
            let all = [&["echo"], words, &["--connections", "2", "--bytes", "0", "--pace", "200"]].concat();
            arena.start(name, as_user(arena.command(&program, &all), user))
        };
        let server = start("server", &["--listen", &address]);
        arena.eventually("a listener", || said(arena, "server").contains("listening"));
        let client = start("client", &["--connect", &address, "--go", "/dev/null", "--stop", &stop_path]);
        let victims = Self { server, client, arena, stop };
        victims.goes_on();
        arena.eventually("a registry", || !victims.registries().is_empty());
        victims
    }

    pub fn pids(&self) -> [u32; 2] {
        [self.server.pid(), self.client.pid()]
    }

    /// Traffic goes on.
    pub fn goes_on(&self) {
        let before = self.progress();
        self.arena.eventually("progress", || self.progress() > before + 1);
    }

    fn progress(&self) -> u64 {
        let said = said(self.arena, "client");
        let last = said.lines().rev().find_map(|line| line.strip_prefix("progress "));
        last.map_or(0, |number| number.parse().unwrap())
    }

    /// Files of theirs in which ends of connections are entered.
    fn registries(&self) -> Vec<PathBuf> {
        let below = fs::read_dir(self.arena.directory()).unwrap().flatten();
        let files = below.flat_map(|entry| fs::read_dir(entry.path()).into_iter().flatten().flatten());
        files
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "registry"))
            .collect()
    }

    /// They end well, and their bytes have gone through memory.
    pub fn end(self) {
        self.goes_on();
        fs::write(&self.stop, "").unwrap();
        for ended in [self.client.ended(), self.server.ended()] {
            assert!(ended.success(), "a victim ended with {ended}");
        }
    }
}

/// What a program of the arena has written.
pub fn said(arena: &Arena, name: &str) -> String {
    fs::read_to_string(arena.path(format!("{name}.out"))).unwrap_or_default()
}
