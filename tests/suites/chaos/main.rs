//! Real programs under real faults, with every byte checked from end to end, natively and under Convoy on two hosts.
//!
//! - [`field`]: servers and clients, which are started again when they were killed; [`servers`] knows the kinds.
//! - [`faults`]: what is done to them, at random times of a seed; [`who`] names those it is done to.
//! - [`place`]: the small file system, the memory cgroup and the clock of a run.
//! - [`soak`]: hours without faults to those who are watched: what they hold must not grow; [`samples`] judges that.
//!
//! CHAOS_SECONDS (12) is how long each of the two runs lasts, CHAOS_SEED (1) the seed; SOAK_MINUTES (0.5) how long the soak is,
//! SOAK_FILE where its samples are written, and SOAK_NATIVE makes it one without Convoy. CHAOS_FABRIC (tcp) is what the agents use
//! between each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod field;
mod place;
mod samples;
mod servers;
mod soak;
mod who;

use convoy_tests::Mode;
use convoy_tests::hosts::{Plan, World, skip, unusable};
use convoy_tests::kit::random::Random;
use std::time::{Duration, Instant};

use faults::{Fault, Faults};
use field::Field;
use place::Place;

/// The provider of libfabric.
fn fabric() -> String {
    setting("CHAOS_FABRIC", "tcp".to_owned())
}

fn setting<T: std::str::FromStr>(name: &str, usual: T) -> T {
    let text = std::env::var(name);
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn programs_survive_chaos() {
    if let Some(why) = unusable() {
        return skip(why);
    }
    let (seconds, seed) = (setting("CHAOS_SECONDS", 12), setting("CHAOS_SEED", 1));
    // Mounts of this thread and of what it starts are nobody else's.
    place::leave_mounts();
    for mode in [Mode::Native, Mode::Preloaded] {
        chaos(mode, Duration::from_secs(seconds), seed);
    }
}

fn chaos(mode: Mode, limit: Duration, seed: u64) {
    let Some(world) = World::new(mode, &fabric(), &Plan::pair()) else { return };
    let place = Place::new(&world);
    world.start_agents();
    let mut field = Field::new(&world, &place, seed);
    let mut faults = Faults::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let began = Instant::now();
    field.gets_on(20);
    while began.elapsed() < limit {
        faults.undo_due(&mut field);
        faults.inflict(&mut field);
        let until = Instant::now() + Duration::from_millis(random.below(700));
        while Instant::now() < until {
            field.check();
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    faults.undo_all(&mut field);
    field.gets_on(100);
    let sums = field.finish();
    println!("{mode:?}, seed {seed}, {:.0} s:", began.elapsed().as_secs_f64());
    println!("  faults: {}", faults.report());
    sums.iter().for_each(|line| println!("  {line}"));
    drop(place);
    let accelerated = world.accelerated();
    let counters = world.finish();
    if accelerated {
        let count = |name| counters.get(name);
        println!(
            "  of programs that ended by themselves: {} promotions, {} streams to the other host, {} returns to TCP, {} channels \
             broken, {} bytes through shared memory, {} through the kernel",
            count("promotions"),
            count("streams_far"),
            count("failovers"),
            count("channels_broken"),
            count("bytes_sent"),
            count("kernel_bytes_sent")
        );
        assert!(count("bytes_sent") > 0 && count("streams_far") > 0, "nothing left the kernel: {counters}");
    }
    let done = faults.count();
    assert!(done >= Fault::ALL.len() / 3, "only {done} faults in {limit:?}");
}
