//! Real programs together: servers in the background, clients in front, all of them natively or all preloaded.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::run::{appending, clear_settings, describe_group, kill_group, preload, wait, wait_for_group};
use crate::{Counters, Mode, Scratch, library};

/// One run of some programs: their registry, their files, their counters.
pub struct Arena {
    mode: Mode,
    registry: Scratch,
    files: Scratch,
    library: PathBuf,
    next: std::cell::Cell<u32>,
}

/// A program in the background, with everything that it has started.
pub struct Service<'a> {
    arena: &'a Arena,
    name: String,
    child: Option<Child>,
}

/// What a program in front has left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Arena {
    /// A fresh one.
    pub fn new(mode: Mode) -> Self {
        let (registry, files) = (Scratch::in_memory(), Scratch::new());
        registry.open_to_all();
        files.open_to_all();
        fs::create_dir(files.join("stats")).expect("directory for counters");
        fs::set_permissions(files.join("stats"), fs::Permissions::from_mode(0o777)).expect("chmod");
        // Programs that run as other users must be able to read it.
        let library = files.join("libconvoy.so");
        if mode == Mode::Preloaded {
            fs::copy(library::path(), &library).expect("copy of the library");
            fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        Self { mode, registry, files, library, next: std::cell::Cell::new(0) }
    }

    /// Natively or preloaded.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Where programs find each other.
    pub fn directory(&self) -> &Path {
        self.registry.path()
    }

    /// A place for files of the programs.
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.files.join(name)
    }

    /// Writes a file there and gives its path.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("file for a program");
        path
    }

    /// A command with the arena's environment, in a process group of its own.
    pub fn command(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0).current_dir(self.files.path());
        clear_settings(&mut command);
        command.env("LC_ALL", "C");
        if self.mode == Mode::Preloaded {
            preload(&mut command, self.registry.path(), &self.path("stats"));
            command.env("LD_PRELOAD", &self.library);
        }
        command
    }

    /// Starts a program in the background.
    pub fn start(&self, name: &str, mut command: Command) -> Service<'_> {
        command.stdout(appending(&self.path(format!("{name}.out"))));
        command.stderr(appending(&self.path(format!("{name}.err"))));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Service { arena: self, name: name.to_owned(), child: Some(child) }
    }

    /// Runs a program to its end and panics when that is not a success within two minutes.
    pub fn run(&self, command: Command) -> Output {
        let shown = format!("{command:?}");
        let output = self.try_run(command, Duration::from_secs(120));
        let Output { status, stdout, stderr } = &output;
        assert!(
            status.success(),
            "{:?}: {shown}\nended with {status}\n{stdout}{stderr}{}",
            self.mode,
            self.logs()
        );
        output
    }

    /// Runs a program to its end, whatever that is, and panics when it takes too long.
    pub fn try_run(&self, mut command: Command, limit: Duration) -> Output {
        let number = self.next.replace(self.next.get() + 1);
        let (out, err) =
            (self.path(format!("run-{number}.stdout")), self.path(format!("run-{number}.stderr")));
        command.stdout(appending(&out)).stderr(appending(&err));
        let shown = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{shown}: {error}"));
        let status = wait(&mut child, limit);
        let remains = if status.is_some() { String::new() } else { describe_group(child.id()) };
        kill_group(child.id());
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (read(&out), read(&err));
        let Some(status) = status else {
            let _ = child.wait();
            panic!("{:?}: {shown}\ntakes too long:\n{remains}\n{stdout}{stderr}{}", self.mode, self.logs());
        };
        Output { status, stdout, stderr }
    }

    /// What the services have written, for messages.
    fn logs(&self) -> String {
        let mut out = String::new();
        for entry in fs::read_dir(self.files.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "err" || extension == "out") {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text[text.len().saturating_sub(3000)..]).into_owned();
                out.push_str(&format!("--- {}\n{text}", path.display()));
            }
        }
        out
    }

    /// Tries something until it works, for a minute at most.
    pub fn eventually(&self, what: &str, mut attempt: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !attempt() {
            assert!(Instant::now() < deadline, "{:?}: {what} does not happen\n{}", self.mode, self.logs());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until somebody listens on a port of the loopback address.
    pub fn listening(&self, port: u16) {
        self.eventually("listening", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    /// Ends it: everything must be removable, and under Convoy bytes must have gone through channels.
    pub fn finish(self, accelerated: bool) -> Counters {
        let counters = Counters::read(&self.path("stats"));
        assert_eq!(counters.impossible(), None, "a counter below zero\n{counters}");
        if accelerated && self.mode == Mode::Preloaded {
            let logs = self.logs();
            assert!(counters.get("bytes_sent") > 0, "no byte went through a channel\n{counters}\n{logs}");
        }
        self.registry.remove().expect("registry directory not removable");
        self.files.remove().expect("files not removable");
        counters
    }
}

impl Service<'_> {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running service").id()
    }

    /// Sends a signal to its first process.
    pub fn signal(&self, signal: i32) {
        crate::kit::sys::kill(i32::try_from(self.pid()).expect("a process id"), signal);
    }

    /// Waits until it has ended by itself, with all its children.
    pub fn ended(mut self) -> ExitStatus {
        let mut child = self.child.take().expect("a running service");
        let group = child.id();
        let status = wait(&mut child, Duration::from_secs(60));
        let quiet = status.is_some() && wait_for_group(group, Duration::from_secs(30));
        let remains = if quiet { String::new() } else { describe_group(group) };
        kill_group(group);
        assert!(remains.is_empty(), "{} does not end:\n{remains}\n{}", self.name, self.arena.logs());
        status.expect("a status")
    }

    /// Asks it to end, and waits.
    pub fn end(self, signal: i32) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(child.id());
            let _ = child.wait();
        }
    }
}

/// A port of the loopback address that nobody uses at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Finds a program, or fails with a line that says what to install.
pub fn find(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from).to_vec();
    places.extend(std::env::split_paths(&path));
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    places.extend(versions.map(|version| version.path().join("bin")));
    let found = places.into_iter().map(|place| place.join(program)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{program} is not installed: ./dev test installs it, or apt-get install {package}")
    })
}

/// Runs the same exercise natively and preloaded; what it says must be the same.
pub fn both(accelerated: bool, exercise: fn(&Arena) -> String) {
    let mut said = Vec::new();
    for mode in [Mode::Native, Mode::Preloaded] {
        let arena = Arena::new(mode);
        said.push(exercise(&arena));
        arena.finish(accelerated);
    }
    assert_eq!(said[0], said[1], "natively, and preloaded");
}
