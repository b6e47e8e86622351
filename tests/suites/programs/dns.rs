//! DNS over TCP: a knot server and one that follows it, unbound in front of them; kdig, dig and a client that asks ahead.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use convoy_tests::arena::{both, find, free_port};
use convoy_tests::{Arena, Service};

use crate::scripts::{python, script};

const ZONE: &str = "example.test";
/// How many names there are below the zone.
const NAMES: usize = 2000;

/// knot gives up the privileges of root, and then may not open what a more privileged process shares with it (ptrace(2)). So
/// all of them are started without.
fn command(arena: &Arena, program: &Path, arguments: &[&str]) -> Command {
    // SAFETY: no memory is involved.
    if unsafe { libc::geteuid() } != 0 {
        return arena.command(program, arguments);
    }
    let mut command =
        arena.command(find("setpriv", "util-linux"), &["--bounding-set=-all", "--inh-caps=-all"]);
    command.arg(program).args(arguments);
    command
}

/// A zone whose names have addresses, and texts of many sizes.
fn zone() -> String {
    let mut text = format!("$ORIGIN {ZONE}.\n$TTL 600\n@ SOA ns.{ZONE}. root.{ZONE}. 1 60 60 600 60\n");
    text.push_str("@ NS ns\nns A 127.0.0.1\n");
    for number in 0..NAMES {
        let (all, size) = (vec!["x".repeat(250); 80], number * 37 % 20_000);
        let (whole, rest) = (size / 250, "x".repeat(size % 250));
        let strings: Vec<_> =
            all.iter().take(whole).chain([&rest]).map(|part| format!("\"{part}\"")).collect();
        writeln!(text, "n{number} A {}", address(number)).unwrap();
        writeln!(text, "n{number} TXT {}", strings.join(" ")).unwrap();
    }
    text
}

fn address(number: usize) -> String {
    format!("10.0.{}.{}", number / 200, number % 200 + 1)
}

/// A knot server with the zone's file, or one that takes the zone from the server at another port.
fn knot<'a>(arena: &'a Arena, name: &str, port: u16, from: Option<u16>) -> Service<'a> {
    let base = arena.path(name).display().to_string();
    fs::create_dir(&base).unwrap();
    let source = match from {
        None => format!("file: {}", arena.file("zone.text", zone()).display()),
        Some(_) => format!("file: {base}/copy.zone\n    master: first"),
    };
    let config = format!(
        "server:\n    listen: 127.0.0.1@{port}\n    rundir: {base}\n    tcp-workers: 3\n    udp-workers: 1\n    \
             background-workers: 1\n\
         database:\n    storage: {base}\n\
         log:\n  - target: stderr\n    any: info\n\
         remote:\n  - id: first\n    address: 127.0.0.1@{}\n\
         acl:\n  - id: all\n    address: 127.0.0.1\n    action: transfer\n\
         template:\n  - id: default\n    storage: {base}\n\
         zone:\n  - domain: {ZONE}\n    acl: all\n    {source}\n",
        from.unwrap_or(1)
    );
    let file = arena.file(&format!("{name}.conf"), config);
    arena.start(name, command(arena, &find("knotd", "knot"), &["-c", file.to_str().unwrap()]))
}

/// A resolver that asks the server at another port for everything, by TCP, and remembers little.
fn unbound(arena: &Arena, port: u16, from: u16) -> Service<'_> {
    let base = arena.path("unbound").display().to_string();
    fs::create_dir(&base).unwrap();
    let config = format!(
        "server:\n  interface: 127.0.0.1@{port}\n  port: {port}\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  \
             directory: {base}\n  pidfile: {base}/pid\n  logfile: \"\"\n  use-syslog: no\n  num-threads: 2\n  \
             do-not-query-localhost: no\n  module-config: iterator\n  tcp-upstream: yes\n  incoming-num-tcp: 100\n  \
             outgoing-num-tcp: 100\n  cache-max-ttl: 0\n  local-zone: \"test.\" nodefault\n  stream-wait-size: 64m\n  \
             max-udp-size: 512\n  jostle-timeout: 60000\n\
         remote-control:\n  control-enable: no\n\
         stub-zone:\n  name: {ZONE}\n  stub-addr: 127.0.0.1@{from}\n"
    );
    let file = arena.file("unbound.conf", config);
    arena.start("unbound", command(arena, &find("unbound", "unbound"), &["-c", file.to_str().unwrap()]))
}

/// Asks for many addresses over one connection.
fn many(arena: &Arena, program: &str, package: &str, port: u16, options: &[&str]) {
    let server = port.to_string();
    let names: Vec<String> = (0..NAMES / 5).map(|number| format!("n{}.{ZONE}", number * 5)).collect();
    let mut arguments = vec!["@127.0.0.1", "-p", &server];
    for name in &names {
        arguments.extend(["-t", "A", "-q", name, "+short", "+tcp"]);
        arguments.extend(options);
    }
    let output = arena.run(command(arena, &find(program, package), &arguments)).stdout;
    let right: Vec<String> = (0..NAMES / 5).map(|number| address(number * 5)).collect();
    let got: Vec<&str> = output.lines().filter(|line| !line.is_empty()).collect();
    assert!(got == right, "{:?}: {program} {options:?}\n{output}", arena.mode());
}

/// The whole zone in one transfer, sorted.
fn transfer(arena: &Arena, port: u16) -> Vec<String> {
    let port = port.to_string();
    let arguments = ["@127.0.0.1", "-p", &port, "+tcp", "+noall", "+answer", ZONE, "AXFR"];
    let output = arena.run(command(arena, &find("kdig", "knot-dnsutils"), &arguments)).stdout;
    let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn pipelined(arena: &Arena, port: u16, connections: &str, questions: &str) -> String {
    let (port, names) = (port.to_string(), NAMES.to_string());
    let arguments = [&script("python/dns_pipeline.py"), &port, ZONE, connections, questions, &names];
    arena.run(command(arena, &python(), &arguments)).stdout
}

fn serial(arena: &Arena, port: u16) -> String {
    let port = port.to_string();
    let arguments = ["@127.0.0.1", "-p", &port, "+tcp", "+short", ZONE, "SOA"];
    arena.run(command(arena, &find("kdig", "knot-dnsutils"), &arguments)).stdout
}

fn authoritative(arena: &Arena) -> String {
    let (one, two) = (free_port(), free_port());
    let first = knot(arena, "first", one, None);
    arena.listening(one);
    let second = knot(arena, "second", two, Some(one));
    arena.listening(two);
    arena.eventually("the zone's transfer", || serial(arena, two).contains(" 1 "));
    many(arena, "kdig", "knot-dnsutils", one, &["+keepopen"]);
    many(arena, "kdig", "knot-dnsutils", one, &["+fastopen"]);
    many(arena, "dig", "bind9-dnsutils", two, &["+keepopen"]);
    let said = pipelined(arena, one, "20", "300") + &pipelined(arena, two, "3", "2000");
    let (zone, copy) = (transfer(arena, one), transfer(arena, two));
    assert_eq!(zone.len(), 2 * NAMES + 4, "{:?}: records of the zone", arena.mode());
    assert!(zone == copy, "{:?}: the second server's zone is another", arena.mode());
    format!("{said}{} {}", first.end(libc::SIGTERM), second.end(libc::SIGTERM))
}

fn resolver(arena: &Arena) -> String {
    let (one, two) = (free_port(), free_port());
    let server = knot(arena, "first", one, None);
    arena.listening(one);
    let resolver = unbound(arena, two, one);
    arena.listening(two);
    many(arena, "dig", "bind9-dnsutils", two, &["+keepopen"]);
    many(arena, "kdig", "knot-dnsutils", two, &["+keepopen"]);
    let said = pipelined(arena, two, "10", "100");
    format!("{said}{} {}", resolver.end(libc::SIGTERM), server.end(libc::SIGTERM))
}

#[test]
fn dns_authoritative() {
    both(true, authoritative);
}

#[test]
fn dns_resolver() {
    both(true, resolver);
}
