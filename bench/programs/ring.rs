//! A bare ring in shared memory between two processes, without any socket: what Convoy's figures are compared with.
//!
//! One producer and one consumer a lane, messages of 64 bytes, cursors on cache lines of their own, every message
//! published as soon as it is written, and both sides look all the time.
//!
//! `--pattern trip`: one message each way at a time; the client prints `rtt_us` (mean of the period) and `trips`.
//! `--pattern oneway`: the client writes, the server prints `messages_per_s` and `messages`. `--take one`: it looks at the
//! cursor and gives room back for each message; `--take all`: it takes all that it sees at one look.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use convoy_bench::args::{Args, Role};
use convoy_bench::ring::{Message, Reader, Rings, Writer};

/// Trips before the clock starts, as in the ping-pong over sockets.
const WARM_UP: Duration = Duration::from_millis(100);
/// Messages between two looks at the clock.
const CLOCK_EVERY: u64 = 256;
/// The number of the message that ends a run.
const LAST: u64 = u64::MAX;

fn main() -> Result<()> {
    let args = Args::from_env()?;
    let path = args.text("file")?;
    let period = Duration::from_secs_f64(args.get("seconds", 0.5)?);
    let trips = args.get("pattern", String::from("trip"))? == "trip";
    match args.role()? {
        Role::Server => {
            let rings = Rings::create(path.as_ref()).context("making the ring")?;
            println!("ready 0");
            let (reader, writer) = rings.server();
            let all = args.get("take", String::from("all"))? == "all";
            if trips { answer(reader, writer) } else { consume(reader, all) }
        }
        Role::Client => {
            let (reader, writer) = Rings::open(path.as_ref()).context("opening the ring")?.client();
            if trips { ask(reader, writer, period) } else { produce(writer, period) }
        }
    }
}

fn answer(mut reader: Reader, mut writer: Writer) -> Result<()> {
    loop {
        let message = reader.take_one();
        if message.number() == LAST {
            return Ok(());
        }
        writer.put(&message);
    }
}

fn ask(mut reader: Reader, mut writer: Writer, period: Duration) -> Result<()> {
    let mut number = 0;
    let mut trips_for = |period: Duration| -> Result<(f64, u64)> {
        let (start, before) = (Instant::now(), number);
        while start.elapsed() < period {
            for _ in 0..CLOCK_EVERY {
                writer.put(&Message::new(number));
                if reader.take_one() != Message::new(number) {
                    bail!("message {number} came back changed");
                }
                number += 1;
            }
        }
        Ok((start.elapsed().as_secs_f64(), number - before))
    };
    trips_for(WARM_UP)?;
    let (seconds, trips) = trips_for(period)?;
    writer.put(&Message::new(LAST));
    println!("rtt_us {}", seconds * 1e6 / trips.max(1) as f64);
    println!("trips {trips}");
    Ok(())
}

fn produce(mut writer: Writer, period: Duration) -> Result<()> {
    let (mut number, end) = (0, Instant::now() + period);
    while Instant::now() < end {
        for _ in 0..CLOCK_EVERY {
            writer.put(&Message::new(number));
            number += 1;
        }
    }
    writer.put(&Message::new(LAST));
    println!("sent_messages {number}");
    Ok(())
}

fn consume(mut reader: Reader, all: bool) -> Result<()> {
    let (mut number, mut right, mut ended) = (0, true, false);
    let mut check = |message: Message| {
        if message.number() == LAST {
            ended = true;
        } else {
            right &= message == Message::new(number);
            number += 1;
        }
        ended
    };
    let mut start = None;
    loop {
        let over = if all { reader.take_all(&mut check) } else { check(reader.take_one()) };
        start.get_or_insert_with(Instant::now);
        if over {
            break;
        }
    }
    let seconds = start.map_or(f64::NAN, |start: Instant| start.elapsed().as_secs_f64());
    if !right {
        bail!("a message was lost or changed");
    }
    println!("messages_per_s {}", number as f64 / seconds);
    println!("messages {number}");
    Ok(())
}
