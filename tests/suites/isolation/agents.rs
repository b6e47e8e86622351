//! What another user can do to a host's agent, and by it.

use convoy_tests::Mode;
use convoy_tests::hosts::peers::Job;
use convoy_tests::hosts::{Host, Plan, Program, World};
use convoy_tests::user::become_user;

use crate::common::{STRANGER, VICTIM, copied, got};

/// Two hosts over the kernel's TCP, where this machine can have them.
fn world() -> Option<World> {
    World::new(Mode::Preloaded, "tcp", &Plan::pair())
}

fn job(options: &str) -> Job {
    Job::new(convoy_tests::program!("host_stream"), "echo", 2, options)
}

/// An intruder on a host, as another user.
fn intrude<'w>(host: Host<'w>, user: u32, words: &[&str]) -> Program<'w> {
    let program = host.world().path("intruder");
    if !program.exists() {
        copied(convoy_tests::program!("intruder"), program.clone());
    }
    let mut command = host.plain(program, words);
    become_user(&mut command, user, user);
    host.start("intruder", command)
}

/// All that a stranger finds is the door: the directory, and the sockets at which programs knock.
#[test]
fn strangers_find_the_door_and_nothing_else() {
    let Some(world) = world() else { return };
    world.start_agents();
    let mut pair = job("--bytes 0 --pace 300").server_user(VICTIM).start(world.host(0), world.host(1));
    pair.connected();
    pair.accelerated();
    pair.go();
    let directory = world.directory().display().to_string();
    let pids = [world.host(0).agent_pid(), pair.server.pid(), pair.client.pid()].map(|pid| pid.to_string());
    let words = [&["look", &directory][..], &pids.each_ref().map(String::as_str)].concat();
    let found = got(&intrude(world.host(0), STRANGER, &words).succeeds());
    let is_door = |line: &String| {
        *line == format!("names {directory}/convoy-agent")
            || line.starts_with(&format!("a connection {directory}/convoy-agent/"))
                && line.ends_with(".agent")
    };
    let others: Vec<_> = found.iter().filter(|line| !is_door(line)).collect();
    world.check(others.is_empty(), &format!("a stranger gets {others:#?}"));
    world.check(found.len() == 3, &format!("two doors and where they are: {found:#?}"));
    pair.goes_on(1);
    pair.stop();
    pair.succeeds();
    world.finish();
}

/// A connection with the same addresses, in a network namespace of the stranger's own, is not theirs.
#[test]
fn addresses_do_not_make_a_connection() {
    let Some(world) = world() else { return };
    world.start_agents();
    let mut pair = job("--bytes 0 --pace 300").start(world.host(1), world.host(0));
    pair.connected();
    pair.accelerated();
    pair.go();
    let list = world.host(0).run(world.host(0).plain("ss", &["-Htn", "dport", "=", ":7000"]));
    let line = list.lines().next().expect("a connection");
    let [.., local, remote] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
    let address = |end: &str| end.rsplit_once(':').unwrap().0.to_owned();
    let script = format!(
        "ip link set lo up && ip address add {}/32 dev lo && ip address add {}/32 dev lo && \
         exec {} offer {} {local} {remote}",
        address(local),
        address(remote),
        world.path("intruder").display(),
        world.host(0).agent_socket().display()
    );
    copied(convoy_tests::program!("intruder"), world.path("intruder"));
    let offer = |command: &[&str]| {
        let mut command = world.host(0).plain(command[0], &command[1..]);
        become_user(&mut command, STRANGER, STRANGER);
        world.host(0).start("offer", command).succeeds()
    };
    let said = offer(&["unshare", "-U", "-r", "-n", "sh", "-c", &script]);
    world.check(said == "declined 5\n", &format!("the socket is of another namespace: {said}"));
    // The same attempt with addresses of its own, here: it is heard, and nobody comes.
    let (intruder, agent) = (world.path("intruder"), world.host(0).agent_socket());
    let own = ["127.0.0.1:40001", "127.0.0.1:40002"];
    let said = offer(&[intruder.to_str().unwrap(), "offer", agent.to_str().unwrap(), own[0], own[1]]);
    world.check(said == "declined 2\n", &format!("nobody offers the other end: {said}"));
    pair.goes_on(1);
    pair.stop();
    pair.succeeds();
    world.finish();
}

/// The agent asks the kernel whose program it is.
#[test]
fn a_policy_for_one_user_serves_no_other() {
    let Some(world) = world() else { return };
    let text = format!("[[rule]]\nallow = true\nusers = [{VICTIM}]\n[[rule]]\nallow = false\n");
    let policy = world.file("policy.toml", text).display().to_string();
    world.host(0).start_agent(&["--insecure", "--policy", &policy]);
    world.host(1).start_agent(&["--insecure"]);
    job("--bytes 100000").server_user(VICTIM).run(world.host(0), world.host(1));
    let mut pair = job("--bytes 100000").port(7001).server_user(STRANGER).start(world.host(0), world.host(1));
    pair.connected();
    world.eventually("the policy's answer", || pair.server.live().get("bypasses_policy") > 0);
    pair.go();
    pair.succeeds();
    world.finish();
}

/// A user who does whatever an agent lets him, with several processes, while others come and are served.
#[test]
fn one_user_cannot_exhaust_it() {
    let Some(world) = world() else { return };
    let host = world.host(0);
    // Few descriptors, so that his share of them is used up.
    let mut command = host.plain("prlimit", &["--nofile=2000:2000"]);
    command.arg(world.path("convoy")).args(["agent", "--insecure"]);
    command.env("CONVOY_DIR", world.directory()).env("CONVOY_FABRIC", world.provider());
    command.env("CONVOY_GATHER", "always").env("CONVOY_LOG", "info").env("NO_COLOR", "1");
    let agent = host.start("agent", command);
    world.eventually("an agent", || {
        agent.output().contains("agent is ready") || agent.complaints().contains("agent is ready")
    });
    world.host(1).start_agent(&["--insecure"]);
    let socket = host.agent_socket().display().to_string();
    let mut floods = Vec::new();
    for kind in ["connections", "hellos", "offers", "nonsense", "connections"] {
        let mut flood = intrude(host, STRANGER, &["flood", &socket, kind]);
        flood.says("floods");
        floods.push(flood);
    }
    for port in 7000..7003 {
        job("--bytes 300000").port(port).server_user(VICTIM).run(host, world.host(1));
    }
    let counters = world.counters();
    world.check(counters.get("streams_far") >= 12, &format!("others are served: {counters}"));
    for flood in &mut floods {
        world.check(flood.running(), "a flood has ended before the others were served");
    }
    let held = std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    world.check(held < 1500, &format!("the agent holds {held} descriptors of 2000"));
    let said = agent.complaints();
    world.check(said.contains("as many descriptors as there may be"), "his share was never used up");
    let lines = said.lines().count();
    world.check(lines < 5000, &format!("he has filled the log with {lines} lines"));
    floods.into_iter().for_each(Program::kill);
    let ended = agent.end(libc::SIGTERM);
    world.check(ended.status.success(), &format!("the agent ended with {}", ended.status));
    world.finish();
}

/// A stranger who listens where the machine's agent would is told nothing, above all no socket.
#[test]
fn an_agent_of_another_user_is_not_trusted() {
    for (user, trusted) in [(STRANGER, false), (0, true)] {
        let Some(world) = world() else { return };
        let (host, socket) = (world.host(0), world.host(0).agent_socket());
        let directory = socket.parent().unwrap();
        std::fs::create_dir(directory).unwrap();
        std::os::unix::fs::chown(directory, Some(user), Some(user)).unwrap();
        let mut poser = intrude(host, user, &["pose", socket.to_str().unwrap()]);
        poser.says("poses");
        let mut pair = job("--bytes 100000").server_user(VICTIM).start(host, world.host(1));
        pair.connected();
        poser.says("a program connects");
        poser.says(if trusted { "got message 1" } else { "it says nothing" });
        world.check(trusted || !poser.output().contains("got"), &poser.output());
        poser.kill();
        pair.go();
        pair.succeeds();
        std::fs::remove_dir_all(directory).unwrap();
        world.finish();
    }
}

/// What the agent tells about itself it tells its own user only.
#[test]
fn its_numbers_are_its_users() {
    let Some(world) = world() else { return };
    let host = world.host(0);
    host.start_agent(&["--insecure"]);
    let ask = |user: u32| {
        let mut command = host.plain(world.path("convoy"), &["stat", "--json"]);
        command.env("CONVOY_DIR", world.directory());
        become_user(&mut command, user, user);
        host.run(command)
    };
    world.check(!ask(STRANGER).contains("\"links\""), "a stranger learns of links");
    world.check(ask(0).contains("\"links\""), "its own user learns of links");
    world.finish();
}
