//! Random programs over the socket API between two hosts, natively and under Convoy, also while agents are replaced and killed.
//!
//! FUZZ_SEED (1) is the seed of the first program, FUZZ_PROGRAMS how many there are, FUZZ_SECONDS how long to go on instead.

use std::process::Command;
use std::time::{Duration, Instant};

use convoy_tests::fuzz::{self, Budget, FAULTS, SCRIPT};
use convoy_tests::hosts::program::Ended;
use convoy_tests::hosts::{Plan, World};
use convoy_tests::kit::hosts::{HOSTS, Hosts};
use convoy_tests::kit::random::Random;
use convoy_tests::{HOST_VARIANTS, compare};

use crate::common::{Expect, acquaint, check, convoy};

const PROGRAM: &str = convoy_tests::program!("fuzz");

/// What becomes of agents while a program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agents {
    Stay,
    Change,
}

fn programs_that_once_differed(provider: &str) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        acquaint(world, 1, 0);
        for kept in fuzz::kept(HOST_VARIANTS) {
            let difference = difference(world, Agents::Stay, 0, kept.variant, &kept.steps);
            let why = difference.map(|difference| format!("{}: {difference}", kept.path.display()));
            world.check(why.is_none(), &why.unwrap_or_default());
        }
    });
}

fn without_faults(provider: &str) {
    random_programs(provider, Agents::Stay, 40);
}

fn while_agents_change(provider: &str) {
    random_programs(provider, Agents::Change, 20);
}

crate::over_providers!(
    programs_that_once_differed: super::programs_that_once_differed,
    without_faults: super::without_faults,
    while_agents_change: super::while_agents_change,
);

fn random_programs(provider: &str, agents: Agents, programs: u64) {
    convoy(provider, &Plan::pair(), |world| {
        world.start_agents();
        acquaint(world, 1, 0);
        let budget = Budget::from_environment(programs);
        for seed in budget.seeds() {
            let (variant, steps) = fuzz::generate(seed, HOST_VARIANTS);
            // Who looks for the reason of a hang finds the program.
            println!("seed {seed}, {variant}\n{}", steps.join("\n"));
            let differs = |steps: &[String]| difference(world, agents, seed, variant, steps);
            let Some(difference) = differs(&steps) else { continue };
            let fewer = fuzz::shrink(steps, |steps| differs(steps).is_some());
            world.fail(&format!("{difference}\nsmaller:\n\n# {variant}\n{}\n", fewer.join("\n")));
        }
        check(world, Expect::Far);
        world.check(
            agents == Agents::Stay || world.counters().get("failovers") > 0,
            "no stream was on the fabric when an agent went",
        );
    });
}

/// Runs a program natively and under Convoy between the two hosts; what differs, in words.
fn difference(world: &World, agents: Agents, seed: u64, variant: &str, steps: &[String]) -> Option<String> {
    let (host, words) = (world.host(0), ["script", variant]);
    let native = host.try_run(prepared(world, agents, host.plain(PROGRAM, &words), steps));
    let command = prepared(world, agents, host.command(PROGRAM, &words), steps);
    let other = match agents {
        Agents::Stay => host.try_run(command),
        Agents::Change => run_while_agents_change(world, command, seed),
    };
    let difference = compare::differ((&native.stdout, native.status), (&other.stdout, other.status))?;
    Some(format!("{difference}\n{}\n{}", other.stdout, other.stderr))
}

fn prepared(world: &World, agents: Agents, command: Command, steps: &[String]) -> Command {
    let mut command = on_hosts(world, command);
    command.env(SCRIPT, steps.join("\n"));
    if agents == Agents::Change {
        command.env(FAULTS, "1");
    }
    command
}

/// A test program on the first host whose peers are on the second.
pub fn on_hosts(world: &World, mut command: Command) -> Command {
    let network = world.network();
    let hosts = Hosts {
        namespaces: [0, 1].map(|host| network.name(host).to_owned()),
        v4: [0, 1].map(|host| network.address(host, 0)),
        v6: [0, 1].map(|host| network.address6(host, 0)),
    };
    command.env(HOSTS, hosts.to_text());
    command
}

/// Runs a program; at moments that the seed chooses, an agent is replaced by another, or killed and started again.
fn run_while_agents_change(world: &World, command: Command, seed: u64) -> Ended {
    let mut random = Random::new(seed);
    let mut program = world.host(0).start("script", command);
    let mut next = Instant::now() + Duration::from_millis(random.below(300));
    while program.running() {
        if Instant::now() >= next {
            change_an_agent(world, &mut random);
            next = Instant::now() + Duration::from_millis(random.below(1000));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    program.ended()
}

fn change_an_agent(world: &World, random: &mut Random) {
    let host = world.host(random.below(2) as usize);
    if random.below(4) == 0 {
        host.kill_agent();
        host.start_agent(&["--insecure"]);
    } else {
        host.replace_agent();
    }
}
