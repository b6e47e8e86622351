//! Agents, interfaces and programs that fail in the middle of traffic. Every byte still comes once and in order: the
//! programs check that themselves, and they end well only if both have had everything.

use convoy_tests::hosts::{Pair, Plan, until};

use crate::common::{TCP, accelerated_again, convoy, ended_well, failed_over, job, load, survived};

fn crash_of_the_agent(provider: &str, host: usize, io: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = load(world, 7000, &format!("--io {io}"));
        world.host(host).kill_agent();
        pair.goes_on(4);
        world.host(1 - host).agent_lives();
        world.host(host).start_agent(&["--insecure"]);
        accelerated_again(world, 7001);
        survived(world, pair, 6);
        failed_over(world);
    });
}

fn crash_of_the_clients_agent(provider: &str) {
    crash_of_the_agent(provider, 0, "blocking");
}

fn crash_of_the_servers_agent(provider: &str) {
    crash_of_the_agent(provider, 1, "level");
}

fn crash_of_the_agent_of_who_polls(provider: &str) {
    crash_of_the_agent(provider, 1, "ask");
}

fn crash_of_both_agents(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = load(world, 7000, "--io poll");
        (0..2).for_each(|host| world.host(host).kill_agent());
        pair.goes_on(4);
        world.start_agents();
        accelerated_again(world, 7001);
        survived(world, pair, 6);
        failed_over(world);
    });
}

/// shutdown(2) of one direction while nobody knows yet that the agents do not answer any more.
fn half_close_beside_stopped_agents(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let pair = load(world, 7000, "--io blocking");
        (0..2).for_each(|host| world.host(host).signal_agent(libc::SIGSTOP));
        ended_well(world, pair, 6);
        (0..2).for_each(|host| world.host(host).signal_agent(libc::SIGCONT));
        failed_over(world);
    });
}

/// close(2) right behind the last byte, while nobody knows yet that the agents do not answer any more.
fn close_beside_stopped_agents(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        // With no end but the one that is asked for.
        let mut pair = job("parting", 7, "--bytes 0 --pace 300").start(world.host(1), world.host(0));
        pair.connected();
        pair.accelerated();
        pair.go();
        world.eventually("bytes that arrive", || pair.server.live().get("bytes_received") > 100_000);
        (0..2).for_each(|host| world.host(host).signal_agent(libc::SIGSTOP));
        pair.stop();
        let said = pair.succeeds();
        (0..2).for_each(|host| world.host(host).signal_agent(libc::SIGCONT));
        for number in 1..7 {
            let found =
                |start: String| said.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned));
            // The client does not count the first.
            let sent = found(format!("client: connection {}: sent ", number - 1)).unwrap_or_default();
            let received = found(format!("server: connection {number}: received ")).unwrap_or_default();
            let whole = sent.strip_suffix(", all").is_some_and(|sent| received == format!("{sent} then end"));
            world.check(whole, &said);
        }
        failed_over(world);
    });
}

fn agents_end_and_start_again(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        for host in 0..2 {
            let port = 7000 + 1000 * host as u16;
            let mut pair = load(world, port, if host == 0 { "--io edge" } else { "--io blocking" });
            world.host(host).end_agent();
            pair.goes_on(4);
            world.host(host).start_agent(&["--insecure"]);
            accelerated_again(world, port + 1);
            survived(world, pair, 6);
        }
        failed_over(world);
    });
}

/// Stopped until the other agent takes it for dead, and then continued.
fn agent_stands_still(provider: &str, stopped: usize) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let pair = load(world, 7000, "--io level");
        let other = world.host(1 - stopped);
        other.agent_mark();
        world.host(stopped).signal_agent(libc::SIGSTOP);
        other.agent_says("link lost");
        world.host(stopped).signal_agent(libc::SIGCONT);
        world.host(stopped).agent_says("link lost");
        survived(world, pair, 6);
        failed_over(world);
        accelerated_again(world, 7001);
    });
}

fn clients_agent_stands_still(provider: &str) {
    agent_stands_still(provider, 0);
}

fn servers_agent_stands_still(provider: &str) {
    agent_stands_still(provider, 1);
}

/// A program takes its agent for gone when that comes back with bytes for it, of which it tells the other agent before that and its
/// program know of anything: both have stood still meanwhile.
#[test]
fn agent_comes_back_too_late_for_its_program() {
    // How long each of them stands still, not waits for anything.
    let pause = |seconds| std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        for round in 0..2 {
            let pair = load(world, 7000 + 1000 * round, "--io blocking");
            let late = world.host(1);
            late.signal_agent(libc::SIGSTOP);
            pause(0.01);
            pair.client.signal(libc::SIGSTOP);
            pause(2.0);
            // Otherwise it would notice.
            world.host(0).signal_agent(libc::SIGSTOP);
            pause(5.5);
            late.signal_agent(libc::SIGCONT);
            pause(0.3);
            world.host(0).signal_agent(libc::SIGCONT);
            pause(0.5);
            pair.client.signal(libc::SIGCONT);
            survived(world, pair, 6);
        }
        failed_over(world);
        accelerated_again(world, 6000);
    });
}

/// The wire is pulled and put in again. A link that outlives this has lost nothing.
fn interface_goes_down_and_up(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = load(world, 7000, "--io blocking");
        world.host(0).configure("link set net0 down").unwrap();
        // How long the fault lasts, not a wait for anything.
        std::thread::sleep(std::time::Duration::from_secs(3));
        world.host(0).configure("link set net0 up").unwrap();
        pair.goes_on(8);
        survived(world, pair, 6);
        let lost = (0..2).any(|host| world.host(host).agent_said("link lost") > 0);
        if lost {
            failed_over(world);
        }
        accelerated_again(world, 7001);
    });
}

/// The other end of a killed program sees the end of its connections, or an error, and no wrong byte before.
fn killed_program(provider: &str, server: bool) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        for (number, io) in ["blocking", "level"].into_iter().enumerate() {
            let port = 7000 + number as u16;
            let pair = load(world, port, &format!("--tolerant --io {io}"));
            let (victim, survivor) =
                if server { (pair.server, pair.client) } else { (pair.client, pair.server) };
            victim.kill();
            let said = survivor.succeeds();
            let ends = ["end", "ECONNRESET", "EPIPE", "echoed"];
            let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("connection ")).collect();
            let fine = |line: &&str| ends.iter().any(|end| line.ends_with(end));
            world.check(lines.len() == 6 && lines.iter().all(fine), &said);
        }
        accelerated_again(world, 7010);
    });
}

fn killed_client(provider: &str) {
    killed_program(provider, false);
}

fn killed_server(provider: &str) {
    killed_program(provider, true);
}

/// The same agent is lost again and again, and new connections are made all the time.
#[test]
fn agent_crashes_again_and_again() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        for round in 0..4 {
            let port = 7000 + 1000 * round as u16;
            let pair = load(world, port, "--io poll");
            let host = world.host(round % 2);
            host.kill_agent();
            host.start_agent(&["--insecure"]);
            survived(world, pair, 6);
        }
        failed_over(world);
    });
}

/// Bytes that only one side has sent when the agent crashes, and nobody reads: they are there when somebody does.
#[test]
fn crash_while_a_reader_is_slow() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = job("slow", 4, "--bytes 2000000").start(world.host(1), world.host(0));
        pair.connected();
        pair.accelerated();
        pair.go();
        let ended = until(|| pair.client.output().contains("the others have ended"));
        world.host(1).kill_agent();
        world.check(ended, "fast connections end");
        pair.succeeds();
    });
}

/// Half-closed connections, whose answers come after the crash.
#[test]
fn crash_between_the_halves() {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        let mut pair = job("halfclose", 4, "--bytes 1500000 --pace 500").start(world.host(1), world.host(0));
        pair.connected();
        pair.accelerated();
        pair.go();
        let far = |pair: &Pair<'_>| pair.server.live().get("bytes_received") > 100_000;
        world.eventually("bytes that arrive", || far(&pair));
        world.host(0).kill_agent();
        let said = pair.succeeds();
        world.check(said.matches("received 1500000 then end").count() == 8, &said);
    });
}

crate::over_providers!(
    crash_of_the_clients_agent: super::crash_of_the_clients_agent,
    crash_of_the_servers_agent: super::crash_of_the_servers_agent,
    crash_of_the_agent_of_who_polls: super::crash_of_the_agent_of_who_polls,
    crash_of_both_agents: super::crash_of_both_agents,
    half_close_beside_stopped_agents: super::half_close_beside_stopped_agents,
    close_beside_stopped_agents: super::close_beside_stopped_agents,
    agents_end_and_start_again: super::agents_end_and_start_again,
    clients_agent_stands_still: super::clients_agent_stands_still,
    servers_agent_stands_still: super::servers_agent_stands_still,
    interface_goes_down_and_up: super::interface_goes_down_and_up,
    killed_client: super::killed_client,
    killed_server: super::killed_server,
);
