//! What a running agent tells about itself, and agents that `convoy run` starts. Its rails are those of libfabric's
//! provider `tcp`; where libfabric is not installed, nothing is tested.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::agents::{Agent, ask, kill, sockets, until};
use common::{Scratch, convoy, library, text};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn json(body: &str) -> Value {
    serde_json::from_str(body).expect(body)
}

#[test]
fn an_agent_tells_about_itself_on_its_socket() {
    let Some(agent) = Agent::start("status", &[]) else { return };
    assert_eq!(fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let (head, body) = agent.get("/health");
    assert!(head.starts_with("HTTP/1.0 200 OK") && body == "ok\n", "{head}");
    let (head, body) = agent.get("/status");
    assert!(head.contains("application/json"), "{head}");
    let status = json(&body);
    assert_eq!(status["pid"], agent.child.id());
    assert_eq!(status["rails"][0]["provider"], "tcp");
    assert!(status["links"].as_array().unwrap().is_empty());
    let (head, body) = agent.get("/metrics");
    assert!(head.contains("version=0.0.4"), "{head}");
    assert!(body.contains("\nconvoy_agent_programs 0\n"), "{body}");
    assert!(agent.get("/other").0.starts_with("HTTP/1.0 404"));
}

#[test]
fn commands_know_the_agent() {
    let Some(agent) = Agent::start("commands", &[]) else { return };
    let document = json(&text(&agent.command(&["stat", "--json"]).stdout));
    assert_eq!(document["agent"]["pid"], agent.child.id());
    let table = text(&agent.command(&["stat"]).stdout);
    assert!(table.contains(&format!("agent (process {})", agent.child.id())), "{table}");
    let report = agent.command(&["doctor", "--json", "--library", library().to_str().unwrap()]);
    let report = json(&text(&report.stdout));
    let findings = report["fabric_findings"].as_array().unwrap();
    let of = |topic: &str| findings.iter().find(|finding| finding["topic"] == topic).expect(topic);
    assert_eq!(of("agent")["verdict"], "ok", "{report}");
    assert_eq!(of("agent's port")["verdict"], "ok", "{report}");
    assert_eq!(of("rails")["verdict"], "ok", "{report}");
}

#[test]
fn without_an_agent_nothing_changes() {
    let place = Scratch::new("without");
    let output = convoy().args(["stat", "--json"]).env("CONVOY_DIR", place.path("")).output().unwrap();
    assert_eq!(text(&output.stdout), "{\"processes\":[]}\n");
    let output = convoy().args(["stat"]).env("CONVOY_DIR", place.path("")).output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 1);
}

#[test]
fn a_fabric_that_was_named_must_be_there() {
    let doctor = |fabric: &str| {
        let mut command = convoy();
        command.args(["doctor", "--json", "--library"]).arg(library()).env("CONVOY_FABRIC", fabric);
        let output = command.output().unwrap();
        (output.status.code(), json(&text(&output.stdout))["fabric_findings"].clone())
    };
    let (status, findings) = doctor("usnic");
    assert_eq!(status, Some(1), "{findings}");
    assert!(findings.to_string().contains("\"no\""), "{findings}");
    for fabric in ["auto", "shm"] {
        let (status, findings) = doctor(fabric);
        assert_eq!(status, Some(0), "{findings}");
    }
}

#[test]
fn metrics_are_on_tcp_where_that_is_wanted() {
    let Some(agent) = Agent::start("metrics", &["--metrics", "127.0.0.1:0"]) else { return };
    assert_eq!(fs::metadata(agent.socket()).unwrap().permissions().mode() & 0o777, 0o666);
    let log = agent.log();
    let address = log.split("metrics address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let ask = |request: &str| ask(TcpStream::connect(address).unwrap(), request);
    assert!(ask("GET /metrics HTTP/1.1\r\n\r\n").1.contains("# TYPE convoy_agent_offers_total counter\n"));
    assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").0.contains("405"));
    assert!(ask(&"x".repeat(5000)).0.contains("413"));
}

#[test]
fn metrics_for_other_hosts_need_a_word() {
    let output = convoy().args(["agent", "--metrics", "0.0.0.0:9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--insecure"));
}

#[test]
fn those_who_say_nothing_do_not_keep_others_out() {
    let Some(agent) = Agent::start("slow", &[]) else { return };
    let silent: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(agent.socket()).unwrap()).collect();
    let start = Instant::now();
    assert_eq!(agent.get("/health").1, "ok\n");
    assert!(start.elapsed() >= Duration::from_millis(500), "they had all the places");
    for mut stream in silent {
        let mut answer = Vec::new();
        // The connection ends one way or the other.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
}

#[test]
fn a_signal_ends_the_agent_in_good_order() {
    let Some(mut agent) = Agent::start("signal", &[]) else { return };
    agent.signal(Signal::TERM);
    assert_eq!(agent.child.wait().unwrap().code(), Some(0), "{}", agent.log());
    assert!(sockets(&agent.place).is_empty());
}

#[test]
fn an_agent_that_nobody_needs_ends() {
    let Some(mut agent) = Agent::start("idle", &["--idle-exit", "1"]) else { return };
    assert_eq!(agent.child.wait().unwrap().code(), Some(0), "{}", agent.log());
    assert!(agent.log().contains("no program needs this agent"));
    assert!(sockets(&agent.place).is_empty());
}

/// A command in a network of its own, because agents that `convoy run` starts all have the same port.
fn alone(place: &Path, arguments: &[&str]) -> Command {
    let network = "ip link set lo up && ip link add v0 type veth peer name v1 && ip addr add 10.88.0.1/24 dev v0 && \
                   ip link set v1 up && ip link set v0 up && exec \"$@\"";
    let own = convoy();
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", network, "sh"]).arg(own.get_program()).args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CONVOY")) {
        command.env_remove(name);
    }
    command.env("CONVOY_DIR", place).env("HOME", place).env("NO_COLOR", "1");
    command
}

#[test]
fn an_agent_is_started_for_a_program_that_wants_one() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return;
    }
    let place = Scratch::new("background");
    let library = library().to_str().unwrap();
    let run = |settings: &[&str], script: &str| {
        let mut arguments = vec!["run", "--library", library];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        arguments.extend(["sh", "-c", script]);
        let output = alone(&place.path(""), &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    // No key: the program runs without an agent, and one line says why.
    let (_, error) = run(&["FABRIC=tcp"], "exit 3");
    assert!(error.lines().count() == 1 && error.contains("--new-key"), "{error}");
    // Nobody wants one.
    for setting in ["FABRIC=auto", "FABRIC=shm", "FABRIC=off", "CONVOY=off"] {
        let (_, error) = run(&[setting, "AGENT_INSECURE=1"], "exit 3");
        assert_eq!(error, "", "{setting}");
    }
    assert!(sockets(&place).is_empty());
    // The agent is there when the program starts, which has no child that it does not know.
    let script = "ls \"$CONVOY_DIR\"/convoy-agent; cat /proc/$$/task/$$/children; exit 3";
    let (output, error) = run(&["FABRIC=tcp", "AGENT_INSECURE=1"], script);
    if error.contains("has not started") {
        let log = fs::read_to_string(place.path("convoy-0/agent.log")).unwrap();
        assert!(log.contains("no device for fabric"), "{log}");
        return;
    }
    assert_eq!(error, "");
    assert!(output.contains(".agent\n"), "{output}");
    let status =
        json(&ask(UnixStream::connect(&sockets(&place)[0]).unwrap(), "GET /status HTTP/1.0\r\n\r\n").1);
    let pid = i32::try_from(status["pid"].as_i64().unwrap()).unwrap();
    let children = output.lines().last().unwrap();
    assert!(!children.split_whitespace().any(|child| child == pid.to_string()), "{output}");
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(text(&line).contains("--idle-exit\x00600"), "{}", text(&line));
    kill(pid, Signal::TERM);
    until("the agent ends", || sockets(&place).is_empty() && !Path::new(&format!("/proc/{pid}")).exists());
}
