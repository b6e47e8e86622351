//! OpenSSH: commands, copies both ways, and forwarded ports, over an sshd of our own.
//!
//! Its child before the login confines itself (seccomp) and has other rights than its parent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::kit::pattern;
use convoy_tests::{Arena, Service};

use crate::web::same_content;

/// Where an sshd of root wants to be when it has given up its rights; made when it is not there, and then removed.
struct Jail(Option<&'static Path>);

impl Jail {
    fn new() -> Self {
        let path = Path::new("/run/sshd");
        // Without the right to make it, sshd does not need it.
        Self(fs::create_dir(path).is_ok().then_some(path))
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            let _ = fs::remove_dir(path);
        }
    }
}

struct Sshd<'a> {
    arena: &'a Arena,
    port: String,
    server: Service<'a>,
    _jail: Jail,
}

impl<'a> Sshd<'a> {
    fn start(arena: &'a Arena, options: &[&str]) -> Self {
        let jail = Jail::new();
        for name in ["host", "user"] {
            let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", name];
            arena.run(arena.command(find("ssh-keygen", "openssh-client"), &arguments));
        }
        let number = free_port();
        let base = arena.path("").display().to_string();
        let config = format!(
            "Port {number}\nListenAddress 127.0.0.1\nHostKey {base}/host\nPidFile none\nUsePAM no\nStrictModes no
             AuthorizedKeysFile {base}/user.pub\nPasswordAuthentication no\nPermitRootLogin yes
             MaxStartups 100\nMaxSessions 100\nSubsystem sftp internal-sftp\n"
        );
        let config = arena.file("sshd_config", config).display().to_string();
        let arguments = [&["-D", "-e", "-f", &config], options].concat();
        let server = arena.start("sshd", arena.command(find("sshd", "openssh-server"), &arguments));
        arena.listening(number);
        Self { arena, port: number.to_string(), server, _jail: jail }
    }

    /// One of the clients, which differ in how they are told the port.
    fn client(&self, program: &str, port: &str, arguments: &[&str]) -> Command {
        let options = ["-F", "none", "-i", "user", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"];
        let quiet = ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", port, &self.port];
        let all = [&options[..], &quiet, arguments].concat();
        self.arena.command(find(program, "openssh-client"), &all)
    }

    fn ssh(&self, arguments: &[&str]) -> Command {
        self.client("ssh", "-p", &[&["127.0.0.1"], arguments].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.arena.path(name)
    }

    fn commands(&self) -> String {
        let mut said = self.arena.run(self.ssh(&["echo hello; seq 1 2000"])).stdout;
        let failed = self.ssh(&["exit 3"]);
        said += &self.arena.try_run(failed, std::time::Duration::from_secs(60)).status.to_string();
        // Both directions at once.
        let mut echo = self.ssh(&["cat"]);
        echo.stdin(fs::File::open(self.path("large")).unwrap());
        let copy = self.arena.start("cat", echo);
        assert!(copy.ended().success());
        same_content("cat", &self.path("cat.out"), &self.path("large"));
        said
    }

    fn copies(&self) {
        let remote = |name: &str| format!("127.0.0.1:{}", self.path(name).display());
        for (options, number) in [(&["-q"][..], 0), (&["-q", "-O"], 1)] {
            let (there, back) = (format!("there{number}"), format!("back{number}"));
            for (from, to) in [("large".to_owned(), remote(&there)), (remote(&there), back.clone())] {
                self.arena.run(self.client("scp", "-P", &[options, &[from.as_str(), &to]].concat()));
            }
            same_content("scp", &self.path(&back), &self.path("large"));
        }
        let put = (0..20).map(|number| format!("put small {}/put{number}\n", self.path("").display()));
        let batch: String = put.chain([format!("get {} got\n", self.path("large").display())]).collect();
        self.arena.file("batch", batch);
        self.arena.run(self.client("sftp", "-P", &["-q", "-b", "batch", "127.0.0.1"]));
        for number in 0..20 {
            same_content("sftp put", &self.path(&format!("put{number}")), &self.path("small"));
        }
        same_content("sftp get", &self.path("got"), &self.path("large"));
    }

    /// A client that checks every value, through two forwarded ports one behind the other.
    fn forwarding(&self) -> String {
        let [cache, remote, local] = [(); 3].map(|()| free_port());
        let port = cache.to_string();
        let arguments = ["-u", "root", "-l", "127.0.0.1", "-p", &port, "-U", "0", "-t", "2", "-I", "4m"];
        let server =
            self.arena.start("memcached", self.arena.command(find("memcached", "memcached"), &arguments));
        self.arena.listening(cache);
        let forwards = [
            format!("-R127.0.0.1:{remote}:127.0.0.1:{cache}"),
            format!("-L127.0.0.1:{local}:127.0.0.1:{remote}"),
        ];
        let options = ["-N", "-o", "ExitOnForwardFailure=yes", &forwards[0], &forwards[1]];
        let tunnel = self.arena.start("tunnel", self.ssh(&options));
        self.arena.listening(local);
        let client = convoy_tests::program!("cache_client");
        let said = self.arena.run(self.arena.command(client, &[&local.to_string(), "8"])).stdout;
        tunnel.end(libc::SIGTERM);
        server.end(libc::SIGTERM);
        said
    }
}

fn exercise(arena: &Arena, options: &[&str]) -> String {
    for (name, size) in [("small", 1000), ("large", 4_000_000)] {
        let mut bytes = vec![0; size];
        pattern::fill(size as u64, 0, &mut bytes);
        arena.file(name, bytes);
    }
    let sshd = Sshd::start(arena, options);
    let mut said = sshd.commands();
    if options.is_empty() {
        sshd.copies();
    }
    said += &sshd.forwarding();
    sshd.server.end(libc::SIGTERM);
    said
}

/// As installed, where every connection is served by a fresh image, and with plain forks, which keep their streams for a
/// while. One after the other: they share a directory of the system.
#[test]
fn ssh() {
    both(true, |arena| exercise(arena, &[]));
    both(true, |arena| exercise(arena, &["-r"]));
}
