//! `convoy trace`: lines, files for Wireshark, and a program that never waits for either.

use super::talk::{Pair, Talker, arena, command};
use convoy_tests::Arena;
use convoy_tests::arena::{find, free_port};
use convoy_tests::kit::sys;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A trace that goes on.
struct Tracer {
    child: Child,
    output: PathBuf,
}

impl Tracer {
    fn start(arena: &Arena, pid: u32, more: &[&str]) -> Self {
        let pid = pid.to_string();
        let mut arguments = vec!["trace", &pid];
        arguments.extend(more);
        let output = arena.path("trace.txt");
        let file = fs::File::create(&output).unwrap();
        let errors = file.try_clone().unwrap();
        let child = command(arena, &arguments).stdout(file).stderr(errors).spawn().unwrap();
        Self { child, output }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Exchanges messages until the trace has one: it is on then.
    fn on(self, arena: &Arena, pair: &Pair) -> Self {
        arena.eventually("a trace", || {
            pair.client.tell("send 3");
            pair.server.tell("take 3");
            self.said().contains("received data 3")
        });
        self
    }

    /// Waits for some words.
    fn sees(&self, arena: &Arena, words: &str) {
        arena.eventually(words, || self.said().contains(words));
    }

    fn signal(&self, signal: i32) {
        sys::kill(i32::try_from(self.child.id()).unwrap(), signal);
    }

    /// Interrupts it and gives all that it has said.
    fn end(mut self) -> String {
        self.signal(libc::SIGINT);
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        self.said()
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn between(talker: &Talker) -> String {
    let ends = talker.ends.borrow();
    format!("{} > {}", ends.0, ends.1)
}

#[test]
fn frames_are_shown_without_their_payload() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    let sent: u64 =
        super::dump::stream(&super::dump::of(&arena, pair.server.pid()))["sending"]["sent"].as_u64().unwrap();
    pair.client.tell("send 16000");
    pair.server.tell("take 16000");
    pair.server.tell("send 40");
    pair.server.tell("send 41");
    tracer.sees(&arena, "sent data 41");
    assert!(ring_pages(&pair.server) > 1);
    let said = tracer.end();
    let stream = between(&pair.server);
    for words in [
        "received block 16000 at ",
        &format!("sent data 40 at {sent}\n"),
        &format!("sent data 41 at {}\n", sent + 40),
    ] {
        let line = said.lines().map(|line| format!("{line}\n")).find(|line| line.contains(words));
        assert!(line.is_some_and(|line| line.contains(&stream)), "{words} of {stream}:\n{said}");
    }
    assert!(!said.contains('"'), "no payload: {said}");
    pair.client.tell("take 81");
    // The events' memory goes with the first message after them, up to the page that counts.
    pair.server.tell("send 1");
    assert!(ring_pages(&pair.server) <= 1, "{} pages", ring_pages(&pair.server));
}

/// Pages that the process has of its ring.
fn ring_pages(talker: &Talker) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{}/smaps", talker.pid())).unwrap();
    let ring = maps.split_once("/memfd:convoy-trace").expect("a ring").1;
    let size = ring.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    size.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() / 4
}

#[test]
fn payload_is_shown_when_it_is_asked_for() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &["--bytes", "200"]).on(&arena, &pair);
    pair.client.tell("send 12");
    pair.client.tell("send 300");
    pair.server.tell("take 312");
    tracer.sees(&arena, "received data 300");
    let said = tracer.end();
    assert!(said.contains(&format!("\"{}\"\n", "x".repeat(12))), "{said}");
    assert!(said.contains(&format!("\"{}\"\n", "x".repeat(200))), "{said}");
}

#[test]
fn ways_back_to_the_kernel_have_reasons() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    pair.server.tell("fdopen");
    pair.server.tell("send 9");
    tracer.sees(&arena, "back to the kernel: fdopen, dprintf and the like");
    tracer.sees(&arena, "to the kernel at ");
    tracer.sees(&arena, "sent 9 through the kernel");
    pair.client.tell("take 9");
    pair.client.tell("send 5");
    pair.server.tell("close");
    tracer.sees(&arena, "close");
    tracer.end();
}

#[test]
fn resets_have_reasons() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    pair.client.overstate(&arena);
    assert_eq!(pair.server.tell("try"), "ConnectionReset");
    tracer.sees(&arena, ": reset: impossible cursor");
    tracer.end();
}

/// A server that is traced while clients come and go, from the first byte on.
#[test]
fn a_streams_whole_life_is_shown() {
    let arena = arena();
    let port = free_port();
    let directory = arena.path("");
    let number = port.to_string();
    let arguments =
        ["--port", &number, "--bind", "127.0.0.1", "--save", "", "--dir", directory.to_str().unwrap()];
    let redis = arena.start("redis", arena.command(find("redis-server", "redis-server"), &arguments));
    arena.listening(port);
    let benchmark = || {
        let arguments = ["-p", &number, "-c", "4", "-n", "2000", "-d", "20000", "-t", "set,get", "--csv"];
        arena.run(arena.command(find("redis-benchmark", "redis-tools"), &arguments))
    };
    // The first connection makes it join.
    benchmark();
    let tracer = Tracer::start(&arena, redis.pid(), &[]);
    arena.eventually("a whole life", || {
        benchmark();
        let said = tracer.said();
        [
            ": open\n",
            "switch 1 to the channel at ",
            "followed switch 1 to the channel at ",
            "credit up to ",
            ": close",
        ]
        .iter()
        .all(|words| said.contains(words))
    });
    let said = tracer.end();
    assert!(
        said.lines()
            .all(|line| line.starts_with('(') || line.contains("127.0.0.1:") || line.contains(": close")),
        "{said}"
    );
    assert!(said.contains("received block "), "{said}");
    redis.signal(libc::SIGKILL);
}

/// The dissector of dist/ in tshark, over a file that `--write` made.
#[test]
fn wireshark_reads_what_was_written() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let path = arena.path("trace.pcapng");
    let more = ["--write", path.to_str().unwrap(), "--bytes", "8"];
    let tracer = Tracer::start(&arena, pair.server.pid(), &more);
    arena.eventually("a trace", || {
        pair.client.tell("send 3");
        pair.server.tell("take 3");
        fs::metadata(&path).is_ok_and(|file| file.len() > 1000)
    });
    pair.client.tell("send 1234");
    pair.server.tell("take 1234");
    pair.server.tell("fdopen");
    pair.server.tell("send 9");
    tracer.end();
    pair.client.tell("take 9");
    let fields = [
        "convoy.event",
        "convoy.stream",
        "convoy.length",
        "convoy.payload",
        "convoy.reason",
        "frame.comment",
    ];
    let rows = tshark(&path, "convoy", &fields);
    let stream = between(&pair.server);
    assert!(rows.iter().all(|row| row[1] == stream), "{rows:?}");
    assert!(rows[0][5].starts_with(&format!("stream {stream}: descriptor ")), "{rows:?}");
    let has = |event: &str, field: usize, value: &str| {
        rows.iter().any(|row| row[0] == event && row[field] == value)
    };
    assert!(has("4", 2, "1234") && has("4", 3, "7878787878787878"), "received: {rows:?}");
    assert!(has("8", 4, "fdopen, dprintf and the like"), "demoted: {rows:?}");
    assert!(has("5", 2, "0") && has("11", 2, "9"), "switched, sent by the kernel: {rows:?}");
    let port = pair.server.ends.borrow().0.rsplit(':').next().unwrap().to_owned();
    let filter = format!("convoy.port == {port} && convoy.length > 1000 && convoy.kind == 2");
    assert_eq!(tshark(&path, &filter, &["convoy.length"]), [["1234"]]);
    assert!(tshark(&path, "_ws.malformed || _ws.lua.error", &["frame.number"]).is_empty());
}

fn tshark(path: &Path, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let dissector = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/wireshark/convoy.lua");
    let mut command = Command::new(find("tshark", "tshark"));
    command.arg("-r").arg(path).arg("-X").arg(format!("lua_script:{}", dissector.display()));
    command.args(["-Y", filter, "-T", "fields", "-E", "separator=|"]);
    fields.iter().for_each(|field| {
        command.args(["-e", field]);
    });
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// A tracer that stands still loses events; the program goes on, and the trace too, when it does.
#[test]
fn the_program_never_waits() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.client.pid(), &[]);
    arena.eventually("a trace", || {
        pair.client.tell("send 3");
        pair.server.tell("take 3");
        tracer.said().contains("sent data 3")
    });
    tracer.signal(libc::SIGSTOP);
    for _ in 0..10 {
        pair.server.begin("take 10000");
        pair.client.tell("spam 10000");
        assert_eq!(pair.server.answer(), "done");
    }
    tracer.signal(libc::SIGCONT);
    arena.eventually("a trace that goes on", || {
        pair.client.tell("send 5");
        pair.server.tell("take 5");
        tracer.said().contains("sent data 5")
    });
    let said = tracer.end();
    let seen = said.matches(": sent data 1 at").count();
    assert!(seen < 100_000, "so many do not fit into the ring: {seen}");
    assert!(said.contains("are lost)") || seen < 65_536, "{seen} were seen, and none was lost");
}

/// A tracer that dies is noticed: the next one finds the process untraced.
#[test]
fn a_dead_tracer_is_forgotten() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let mut first = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    let pid = pair.server.pid().to_string();
    let second = arena
        .try_run(command(&arena, &["trace", &pid, "--seconds", "0.1"]), std::time::Duration::from_secs(60));
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains("is being traced already"), "{}", second.stderr);
    // The first one has not noticed anything.
    pair.client.tell("send 8");
    pair.server.tell("take 8");
    first.sees(&arena, "received data 8");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    arena.eventually("another trace", || {
        let arguments = ["trace", &pid[..], "--seconds", "0.1"];
        let output = arena.try_run(command(&arena, &arguments), std::time::Duration::from_secs(60));
        output.status.success()
    });
}

/// The descriptor of the events is Convoy's own: a program that wants its number gets it, and both go on.
#[test]
fn a_program_may_take_the_descriptors_number() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    let ring = || {
        let entries = fs::read_dir(format!("/proc/{}/fd", pair.server.pid())).unwrap().flatten();
        let found = entries.map(|entry| entry.path()).find(|path| {
            fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("convoy-trace"))
        });
        found.expect("the ring").file_name().unwrap().to_str().unwrap().to_owned()
    };
    let number = ring();
    pair.server.tell(&format!("seize {number}"));
    assert_ne!(ring(), number);
    pair.client.tell("send 6");
    pair.server.tell("take 6");
    tracer.sees(&arena, "received data 6");
    tracer.end();
    let again = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    again.end();
}

/// A forked child has counters and events of its own: it does not write into its parent's, and can be traced itself.
#[test]
fn a_child_does_not_write_its_parents_events() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let tracer = Tracer::start(&arena, pair.server.pid(), &[]).on(&arena, &pair);
    pair.server.begin("child 7");
    pair.client.tell("take 5");
    pair.client.tell("send 7");
    assert_eq!(pair.server.answer(), "done");
    pair.client.tell("send 9");
    pair.server.tell("take 9");
    tracer.sees(&arena, "received data 9");
    let said = tracer.end();
    assert!(!said.contains("sent data 5") && !said.contains("received data 7"), "{said}");
}

/// The ring is a file to the kernel: where the program's limit forbids it, both say so.
#[test]
fn a_process_without_room_for_events_says_so() {
    let arena = arena();
    let pair = Pair::accelerated(&arena, &[]);
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    let pid = i32::try_from(pair.server.pid()).unwrap();
    // SAFETY: a limit that is read, and nothing written.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    let mut tracer = Tracer::start(&arena, pair.server.pid(), &[]);
    let mut status = None;
    arena.eventually("the end of the trace", || {
        pair.client.tell("send 3");
        pair.server.tell("take 3");
        status = tracer.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(1));
    assert_eq!(tracer.said().lines().count(), 1, "{}", tracer.said());
    let log = fs::read_to_string(arena.path(super::talk::ERRORS)).unwrap();
    assert!(log.contains("no memory for the events of a trace: File too large (EFBIG)"), "{log}");
}

#[test]
fn a_process_without_convoy_is_refused_by_one_line() {
    let arena = arena();
    let pid = std::process::id().to_string();
    let output = super::talk::convoy(&arena, &["trace", &pid]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}
