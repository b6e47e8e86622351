//! Does the steps of a random program and says what each call answered. A step that could block for ever, or whose answer
//! would depend on the moment, is skipped by rules that know only what was sent and read so far, so the transcript of a
//! program is the same in every run.
//!
//! Here is what concerns all connections: opening them, the epolls, a pipe, a child that holds copies of everything.
//! `end` has the plain calls on one connection, `forms` the longer of them, `waits` the calls that sleep, `holders` the other
//! processes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod end;
mod forms;
mod holders;
mod waits;

use convoy_tests::fuzz::{FAULTS, LINKS, SCRIPT};
use convoy_tests::kit::epoll::{ET, EXCLUSIVE, Epoll, IN, ONESHOT, OUT, RDHUP};
use convoy_tests::kit::net::Family;
use convoy_tests::kit::{Case, main as run, show, sys};
use convoy_tests::say;

use end::End;
use holders::{Holder, Worker};

/// What the pipe and the nested epoll are called in events.
const PIPE: u64 = 0xf0;
const NESTED: u64 = 0xe0;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if words.get(1).is_some_and(|word| word == holders::AFTER_EXEC) {
        return holders::after_exec(&words[2..]);
    }
    run(&[("script", script)]);
}

struct Program<'a> {
    case: &'a mut Case,
    ends: Vec<End>,
    epolls: [Epoll; 2],
    /// Both ends, and whether there is a byte in it.
    pipe: (i32, i32, bool),
    worker: Worker,
    holder: Option<Holder>,
}

fn script(case: &mut Case) {
    let steps = std::env::var(SCRIPT).expect("steps");
    // Before there is any connection: it gets them one by one.
    let worker = Worker::start();
    let (read, write) = sys::pipe();
    let ends = (0..LINKS).map(|number| End::new(case, family(number as usize))).collect();
    let epolls = [Epoll::new(), Epoll::new()];
    let mut program = Program { case, ends, epolls, pipe: (read, write, false), worker, holder: None };
    for (number, step) in steps.lines().enumerate() {
        let words: Vec<&str> = step.split(' ').collect();
        let numbers: Vec<usize> = words[2..].iter().map(|word| word.parse().expect("a number")).collect();
        let link = words[0].parse::<usize>().expect("a link") % program.ends.len();
        let mut answer = program.step(link, words[1], &numbers);
        if faults() && MOMENTARY.contains(&words[1]) {
            answer = "asked".into();
        }
        say!("{number}: {step}: {answer}");
    }
    program.finish();
}

/// Whether agents go while the program runs: a stream that returns to the kernel is busy for a moment.
pub fn faults() -> bool {
    std::env::var_os(FAULTS).is_some()
}

/// Steps that ask what is ready at this moment.
const MOMENTARY: [&str; 7] = ["poll", "select", "look", "ready", "queued", "impatient", "interrupted"];

fn family(number: usize) -> Family {
    [Family::V4, Family::V4, Family::V6, Family::Mapped][number % 4]
}

impl Program<'_> {
    fn step(&mut self, link: usize, verb: &str, numbers: &[usize]) -> String {
        let number = |index: usize| numbers.get(index).copied().unwrap_or(0);
        match verb {
            "open" => self.open(link, number(0)),
            "look" | "ready" => self.look(verb, number(0)),
            "add" | "modify" | "delete" => self.control(link, verb, numbers),
            "nest" => {
                let events = [IN, IN | ET, IN | ONESHOT][number(0) % 3] & !self.untold();
                show(self.epolls[0].add(self.epolls[1].fd, events, NESTED))
            }
            "unnest" => show(self.epolls[0].delete(self.epolls[1].fd)),
            "pipe-add" => {
                let events = EVENTS[number(1) % EVENTS.len()] & !(OUT | RDHUP);
                show(self.epolls[number(0) % 2].add(self.pipe.0, events, PIPE))
            }
            "pipe-write" => self.pipe_write(),
            "pipe-read" => self.pipe_read(),
            "hold" => self.hold(),
            "release" => self.release(link, number(0), number(1)),
            "pass" => self.ends[link].pass(&self.worker, numbers),
            _ => self.ends[link].step(verb, numbers),
        }
    }

    /// A new connection in the place of one that is closed, with numbers that are used again.
    fn open(&mut self, link: usize, number: usize) -> String {
        if !self.ends[link].is_closed() || self.holder.is_some() {
            return "skipped".into();
        }
        self.ends[link] = End::new(self.case, family(number));
        "opened".into()
    }

    /// What has been sent so far has arrived, whoever is looked at.
    fn look(&mut self, verb: &str, number: usize) -> String {
        self.ends.iter_mut().for_each(End::settle);
        let epoll = &self.epolls[number % 2];
        if verb == "look" { epoll.look(0) } else { sys::events(sys::poll_one(epoll.fd, libc::POLLIN, 0)) }
    }

    fn control(&mut self, link: usize, verb: &str, numbers: &[usize]) -> String {
        let untold = self.untold();
        let (epoll, end) = (&self.epolls[numbers[0] % 2], &mut self.ends[link]);
        let Some(fd) = end.descriptor(numbers[1]) else { return "closed".into() };
        // What arrives later would be an edge, or not.
        end.settle();
        let data = (link * 16 + numbers[1] % end.copies()) as u64;
        let events = numbers.get(2).map_or(0, |number| EVENTS[number % EVENTS.len()] & !untold);
        show(match verb {
            "add" => {
                end.watch(fd);
                epoll.add(fd, events, data)
            }
            "modify" => epoll.modify(fd, events, data),
            _ => epoll.delete(fd),
        })
    }

    /// What is not asked of an epoll: from another host an edge may be told twice.
    fn untold(&self) -> u32 {
        if self.case.is_far() { ET } else { 0 }
    }

    fn pipe_write(&mut self) -> String {
        if std::mem::replace(&mut self.pipe.2, true) {
            return "skipped".into();
        }
        show(sys::write(self.pipe.1, b"x"))
    }

    fn pipe_read(&mut self) -> String {
        if !std::mem::replace(&mut self.pipe.2, false) {
            return "skipped".into();
        }
        show(sys::read(self.pipe.0, &mut [0]))
    }

    /// From now on a child has copies of everything: of the other ends too, where they are in this process.
    fn hold(&mut self) -> String {
        if self.holder.is_some() || !self.case.in_process() {
            return "skipped".into();
        }
        self.holder = Some(Holder::start(&self.ends));
        self.ends.iter_mut().for_each(|end| end.held = !end.is_closed());
        "held".into()
    }

    /// The child does something with one connection, or nothing, and ends.
    fn release(&mut self, link: usize, how: usize, count: usize) -> String {
        let Some(holder) = self.holder.take() else { return "skipped".into() };
        let ended = holder.end(&mut self.ends[link], link, how, count);
        let killed = Holder::is_killed(how);
        let rests: Vec<String> = self.ends.iter_mut().filter_map(|end| end.released(killed)).collect();
        format!("{ended} {}", rests.join(" "))
    }

    fn finish(mut self) {
        if self.holder.is_some() {
            self.release(0, 0, 0);
        }
        self.ends.into_iter().for_each(End::finish);
        self.worker.end();
    }
}

const EVENTS: [u32; 10] = [
    IN,
    IN | RDHUP,
    IN | OUT,
    OUT,
    IN | ET,
    IN | ONESHOT,
    IN | RDHUP | ET,
    IN | ET | ONESHOT,
    IN | EXCLUSIVE,
    0,
];
