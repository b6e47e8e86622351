//! The soak: servers and clients that live all the time, connections that come and go, agents that are replaced, killed and
//! started again. What those who live hold must not grow, and none of their connections may be cut short.

use std::time::{Duration, Instant};

use convoy_tests::Mode;
use convoy_tests::hosts::{Plan, World, skip, unusable};
use convoy_tests::kit::random::Random;

use crate::field::Field;
use crate::place::{self, Place};
use crate::samples::{Sample, Series};
use crate::servers::KINDS;
use crate::{fabric, setting};

/// Between two looks at everybody.
const PERIOD: Duration = Duration::from_secs(2);
/// The longest time between two changes of an agent, in seconds.
const AGENT_SECONDS: u64 = 40;

#[test]
fn what_programs_hold_does_not_grow() {
    if let Some(why) = unusable() {
        return skip(why);
    }
    let limit = Duration::from_secs_f64(60.0 * setting("SOAK_MINUTES", 0.5));
    let seed = setting("CHAOS_SEED", 1);
    place::leave_mounts();
    // To tell what programs hold of their own accord.
    let mode = if std::env::var_os("SOAK_NATIVE").is_some() { Mode::Native } else { Mode::Preloaded };
    let Some(world) = World::new(mode, &fabric(), &Plan::pair()) else { return };
    let place = Place::new(&world);
    world.start_agents();
    let mut field = Field::new(&world, &place, seed);
    let (mut random, began) = (Random::new(seed), Instant::now());
    let (mut watched, mut changes) = (Watched::default(), [0u64; 2]);
    field.gets_on(20);
    // While servers were still starting.
    let refused = field.cut_short();
    // A short one sees one change of an agent all the same.
    let mut change_at = began + (limit / 3).min(Duration::from_secs(AGENT_SECONDS));
    while began.elapsed() < limit {
        watched.look(&mut field, began.elapsed().as_secs_f64());
        if world.accelerated() && Instant::now() >= change_at {
            let replace = random.below(2) == 0;
            // The agent of the other host lives all the time.
            let host = world.host(1);
            if replace {
                host.replace_agent();
            } else {
                host.kill_agent();
                std::thread::sleep(Duration::from_millis(random.below(1000)));
                host.start_agent(&["--insecure"]);
            }
            changes[usize::from(replace)] += 1;
            change_at = Instant::now() + Duration::from_secs(1 + random.below(AGENT_SECONDS));
        }
        let until = Instant::now() + PERIOD.min(limit / 20);
        while Instant::now() < until {
            field.check();
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    field.gets_on(100);
    let cut_short = field.cut_short() - refused;
    let complaints = field.complaints();
    let lines = field.finish();
    println!(
        "seed {seed}, {:.1} minutes, {} agents killed and started again, {} replaced",
        began.elapsed().as_secs_f64() / 60.0,
        changes[0],
        changes[1]
    );
    lines.iter().for_each(|line| println!("  {line}"));
    let grown = watched.report();
    drop(place);
    let counters = world.finish();
    assert_eq!(cut_short, 0, "connections that would have lived without Convoy\n{complaints}");
    // In a short one everything is still warming up.
    assert!(grown.is_empty() || limit < Duration::from_secs(300), "{grown:?}");
    if mode == Mode::Native {
        return;
    }
    let (far, back) = (counters.get("streams_far"), counters.get("failovers"));
    println!(
        "  {far} streams to the other host, {back} returns to TCP, of programs that ended by themselves"
    );
    assert!(far > 0, "nothing left the kernel: {counters}");
}

/// Everybody's samples.
#[derive(Default)]
struct Watched {
    all: Vec<Series>,
}

impl Watched {
    fn look(&mut self, field: &mut Field<'_>, seconds: f64) {
        let mut now = Vec::new();
        for (what, parties) in [("server", &field.servers), ("client", &field.clients)] {
            for party in parties {
                let name = format!("{} {what} on host {}", KINDS[party.kind].0, party.host);
                let pid = party.program.as_ref().map(|program| program.pid());
                now.push((name, pid.and_then(|pid| Sample::of(pid, seconds))));
            }
        }
        let agent = field.world.host(0).running_agent();
        now.push(("agent of host 0".to_owned(), agent.and_then(|agent| Sample::of(agent, seconds))));
        let files = Sample::of_directory(field.world.directory(), seconds);
        now.push(("files in CONVOY_DIR".to_owned(), Some(files)));
        for (name, sample) in now {
            let Some(sample) = sample else { continue };
            match self.all.iter_mut().find(|series| series.name == name) {
                Some(series) => series.samples.push(sample),
                None => self.all.push(Series { name, samples: vec![sample] }),
            }
        }
        // About once a minute, for whoever ends the soak before it ends.
        if self.all.first().is_some_and(|series| series.samples.len().is_multiple_of(30)) {
            self.save();
        }
    }

    /// Writes the file of all samples so far.
    fn save(&self) {
        if let Some(path) = std::env::var_os("SOAK_FILE") {
            let csv: String = self.all.iter().map(Series::csv).collect();
            let head = "who,seconds,anonymous_kib,resident_kib,descriptors,threads\n";
            std::fs::write(&path, format!("{head}{csv}")).expect("the file of samples");
        }
    }

    /// Prints a table; what has grown.
    fn report(&self) -> Vec<String> {
        self.save();
        let mut grown = Vec::new();
        for series in &self.all {
            let (text, more) = series.judge();
            print!("{text}");
            grown.extend(more);
        }
        grown
    }
}
