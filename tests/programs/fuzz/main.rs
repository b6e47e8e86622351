//! Does the steps of a random program and says what each call answered. A step that could block for ever, or whose answer
//! would depend on the moment, is skipped by rules that know only what was sent and read so far, so the transcript of a
//! program is the same in every run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]

mod end;

use convoy_tests::fuzz::{LINKS, SCRIPT};
use convoy_tests::kit::epoll::{ET, Epoll, IN, ONESHOT, OUT, RDHUP};
use convoy_tests::kit::{Case, main as run};
use convoy_tests::say;

use end::End;

fn main() {
    run(&[("script", script)]);
}

fn script(case: &mut Case) {
    let steps = std::env::var(SCRIPT).expect("steps");
    let mut ends: Vec<End> = (0..LINKS).map(|_| End::new(case.link())).collect();
    let epolls = [Epoll::new(), Epoll::new()];
    for (number, step) in steps.lines().enumerate() {
        let words: Vec<&str> = step.split(' ').collect();
        let numbers: Vec<usize> = words[2..].iter().map(|word| word.parse().expect("a number")).collect();
        let link = words[0].parse::<usize>().expect("a link") % ends.len();
        let answer = if words[1] == "look" {
            // What has been sent so far has arrived, whoever is looked at.
            ends.iter_mut().for_each(End::settle);
            epolls[numbers[0] % 2].look(0)
        } else if let Some(answer) = control(&epolls, &mut ends[link], link, words[1], &numbers) {
            answer
        } else {
            ends[link].step(words[1], &numbers)
        };
        say!("{number}: {step}: {answer}");
    }
    ends.into_iter().for_each(End::finish);
}

/// epoll_ctl.
fn control(epolls: &[Epoll; 2], end: &mut End, link: usize, verb: &str, numbers: &[usize]) -> Option<String> {
    if !matches!(verb, "add" | "modify" | "delete") {
        return None;
    }
    let epoll = &epolls[numbers[0] % 2];
    let Some(fd) = end.descriptor(numbers[1]) else { return Some("closed".into()) };
    let data = (link * 16 + numbers[1] % end.copies()) as u64;
    let kinds = [IN, IN | RDHUP, IN | OUT, OUT, IN | ET, IN | ONESHOT, IN | RDHUP | ET, 0];
    let events = numbers.get(2).map_or(0, |number| kinds[number % kinds.len()]);
    Some(convoy_tests::kit::show(match verb {
        "add" => {
            end.watch(fd);
            epoll.add(fd, events, data)
        }
        "modify" => epoll.modify(fd, events, data),
        _ => epoll.delete(fd),
    }))
}
