//! Agents of different versions do not take over from each other; the running one goes on. The other agent is this test, which
//! speaks as one of another version would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::agents::{Agent, agent_command, kill, sockets};
use common::{Scratch, text};
use convoy_runtime::agent::protocol::{Message, Part, Versions};
use convoy_runtime::agent::server::{Heard, Program, Server};
use rustix::process::Signal;
use std::ffi::CString;
use std::fs;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// The next message of the other end; nothing when it has ended.
fn next(session: &Program) -> Option<Message> {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        match session.receive() {
            Heard::Message(message, _) => return Some(message),
            Heard::Nothing => std::thread::sleep(Duration::from_millis(2)),
            Heard::End => return None,
            Heard::Nonsense(_) => panic!("no message"),
        }
    }
    panic!("no answer")
}

fn others() -> [Versions; 4] {
    let own = Versions::OWN;
    [
        Versions { state: own.state + 1, ..own },
        Versions { state: own.state - 1, ..own },
        Versions { protocol: own.protocol + 1, ..own },
        Versions { protocol: 0, state: u32::MAX },
    ]
}

#[test]
fn the_running_agent_refuses_another_version_and_goes_on() {
    let Some(mut agent) = Agent::start("refuses", &[]) else { return };
    for other in others() {
        let session = Program::connect(&c_path(&agent.socket().with_extension("agent"))).unwrap();
        assert!(session.send(Message::TakeOver(other), None));
        assert_eq!(next(&session), Some(Message::Refused(Versions::OWN)));
        // What it was not given it cannot take.
        session.send(Message::Taken, None);
        assert_eq!(next(&session), None);
    }
    assert_eq!(agent.log().matches("no hand-over to an agent of another version").count(), others().len());
    assert!(agent.child.try_wait().unwrap().is_none(), "{}", agent.log());
    assert_eq!(agent.get("/health").1, "ok\n");
}

#[test]
fn one_successor_at_a_time() {
    let Some(mut agent) = Agent::start("one", &[]) else { return };
    let ask = || {
        let session = Program::connect(&c_path(&agent.socket().with_extension("agent"))).unwrap();
        assert!(session.send(Message::TakeOver(Versions::OWN), None));
        session
    };
    let first = ask();
    assert_eq!(next(&first), Some(Message::Part(Part::Programs)));
    assert_eq!(next(&ask()), None, "there is one already");
    drop(first);
    let begin = Instant::now();
    while next(&ask()).is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", agent.log());
    }
    assert!(agent.child.try_wait().unwrap().is_none());
    assert_eq!(agent.get("/health").1, "ok\n");
}

/// How a new agent ends when the running one, which is this test, says these messages.
fn ends_with(name: &str, answer: &[Message]) -> String {
    let place = Scratch::new(name);
    let network = convoy_runtime::agent::server::network_of(None).unwrap();
    let user = rustix::process::geteuid().as_raw();
    let own = if user == 0 { "convoy-agent".to_owned() } else { format!("convoy-{user}") };
    let directory = place.path(&own);
    fs::create_dir(&directory).unwrap();
    let server = Server::bind(&c_path(&directory.join(format!("{network}.agent"))), 0o600).unwrap();
    let child = agent_command(&place, &["--take-over"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let begin = Instant::now();
    let session = loop {
        if let Some(session) = server.accept() {
            break session;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "nobody asks");
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(next(&session), Some(Message::TakeOver(Versions::OWN)));
    for message in answer {
        let passed = matches!(message, Message::Part(_)).then_some(server.as_fd());
        assert!(session.send(*message, passed));
    }
    drop(session);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_new_agent_does_not_take_over_from_another_version() {
    for (number, other) in others().into_iter().enumerate() {
        for answer in [Message::Refused(other), Message::AllParts(other)] {
            let said = ends_with(&format!("other-{number}"), &[Message::Part(Part::Programs), answer]);
            assert!(said.contains("is of another version"), "{said}");
        }
    }
}

#[test]
fn a_new_agent_takes_only_what_is_whole() {
    let parts = [Part::Programs, Part::Agents, Part::Status].map(Message::Part);
    let all = Message::AllParts(Versions::OWN);
    let said = ends_with("parts", &[&parts[..], &[all]].concat());
    assert!(said.contains("not handed over everything"), "{said}");
    let knowledge = Message::Part(Part::Knowledge);
    let said = ends_with("knowledge", &[&parts[..], &[knowledge, all]].concat());
    assert!(said.contains("cannot be read"), "{said}");
    let said = ends_with("silence", &[]);
    assert!(said.contains("does not hand over"), "{said}");
    let said = ends_with("nonsense", &[Message::Ping]);
    assert!(said.contains("makes no sense"), "{said}");
}

#[test]
fn a_successor_with_wrong_settings_changes_nothing() {
    let Some(mut agent) = Agent::start("settings", &[]) else { return };
    let missing = agent.place.path("missing").display().to_string();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().port().to_string();
    for (options, words) in [
        (&["--listen", "0.0.0.0", "--port", "0"][..], "needs a key"),
        (&["--insecure", "--key", &missing], "missing"),
        (&["--insecure", "--policy", &missing], "missing"),
        (&["--insecure", "--rail", "nothing"], "no device"),
        (&["--insecure", "--listen", "127.0.0.1", "--port", &taken], "cannot listen"),
    ] {
        let mut command = common::convoy();
        command.args(["agent", "--take-over"]).args(options);
        command.env("CONVOY_DIR", agent.place.path("")).env("CONVOY_FABRIC", "tcp");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert!(agent.child.try_wait().unwrap().is_none(), "{}", agent.log());
        assert_eq!(agent.get("/health").1, "ok\n");
    }
}

/// What a service manager hears: that the agent is ready, and that another process is the service before the first one ends.
#[test]
fn the_service_manager_follows_the_successor() {
    let notices = Scratch::new("notices");
    let socket = UnixDatagram::bind(notices.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hear = || {
        let mut bytes = [0; 100];
        let count = socket.recv(&mut bytes).unwrap();
        text(&bytes[..count])
    };
    let notify = ("NOTIFY_SOCKET", notices.path("notify"));
    let Some(mut first) = Agent::start_with("follows", |command| command.env(notify.0, &notify.1)) else {
        return;
    };
    assert_eq!(hear(), "READY=1");
    let log = fs::File::create(first.place.path("second.log")).unwrap();
    let mut command = agent_command(&first.place, &["--take-over"]);
    let mut second = command.env(notify.0, &notify.1).stderr(log).spawn().unwrap();
    assert_eq!(hear(), format!("MAINPID={}", second.id()));
    assert!(first.child.wait().unwrap().success(), "{}", first.log());
    assert_eq!(hear(), "READY=1");
    assert_eq!(first.get("/health").1, "ok\n", "the socket is the second's");
    kill(i32::try_from(second.id()).unwrap(), Signal::TERM);
    assert!(second.wait().unwrap().success());
    assert!(sockets(&first.place).is_empty(), "files are left behind");
}
