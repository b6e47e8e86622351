//! Credit between a sender and a receiver: conserved, never stalled, and proof against lies.

use convoy_aggregator::credit::{CreditError, MAX_WINDOW, ReceiveCredit, SendCredit};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Send(u64),
    Arrive(u64),
    Consume(u64),
    Hear,
    Window(u64),
    GrantNow,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u64..300).prop_map(Step::Send),
        4 => (0u64..300).prop_map(Step::Arrive),
        4 => (0u64..300).prop_map(Step::Consume),
        2 => Just(Step::Hear),
        1 => (0u64..200).prop_map(Step::Window),
        1 => Just(Step::GrantNow),
    ];
    vec(step, 0..200)
}

struct Model {
    sender: SendCredit,
    receiver: ReceiveCredit,
    in_flight: u64,
    told: u64,
}

impl Model {
    fn new(window: u64) -> Self {
        let mut receiver = ReceiveCredit::new(window);
        let told = receiver.grant_now();
        Self { sender: SendCredit::default(), receiver, in_flight: 0, told }
    }

    fn arrive(&mut self, n: u64) -> Result<(), CreditError> {
        let n = n.min(self.in_flight);
        self.in_flight -= n;
        self.receiver.on_received(n)
    }

    fn consume(&mut self, n: u64) {
        let n = n.min(self.receiver.unread());
        self.told = self.receiver.on_consumed(n).unwrap_or(self.told);
    }

    fn step(&mut self, step: &Step) -> Result<(), CreditError> {
        match *step {
            Step::Send(n) => {
                let n = n.min(self.sender.available());
                self.sender.consume(n)?;
                self.in_flight += n;
            }
            Step::Arrive(n) => self.arrive(n)?,
            Step::Consume(n) => self.consume(n),
            Step::Hear => self.sender.grant(self.told)?,
            Step::Window(window) => self.receiver.set_window(window),
            Step::GrantNow => self.told = self.receiver.grant_now(),
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn credit_is_conserved(window in 0u64..200, steps in steps()) {
        let mut model = Model::new(window);
        for step in &steps {
            let before = model.receiver.granted();
            model.step(step)?;
            let (sender, receiver) = (&model.sender, &model.receiver);
            prop_assert_eq!(sender.sent(), receiver.received() + model.in_flight);
            prop_assert_eq!(receiver.received(), receiver.consumed() + receiver.unread());
            prop_assert!(sender.sent() + sender.available() <= receiver.granted());
            prop_assert!(receiver.granted() >= before, "a grant is never taken back");
            prop_assert_eq!(model.told, receiver.granted());
        }
    }

    #[test]
    fn a_sender_whose_bytes_were_read_may_send(window in 1u64..200, steps in steps()) {
        let mut model = Model::new(window);
        for step in steps.iter().filter(|step| !matches!(step, Step::Window(_))) {
            model.step(step)?;
        }
        model.arrive(u64::MAX)?;
        model.consume(u64::MAX);
        model.sender.grant(model.told)?;
        prop_assert!(model.sender.available() > window / 2);
    }

    #[test]
    fn a_receiver_never_has_more_than_the_window_outstanding(window in 0u64..200, steps in steps()) {
        let mut model = Model::new(window);
        for step in steps.iter().filter(|step| !matches!(step, Step::Window(_))) {
            model.step(step)?;
            prop_assert!(model.receiver.granted() - model.receiver.consumed() <= window);
        }
    }

    #[test]
    fn no_limit_makes_the_sender_panic_or_exceed_a_window(limits in vec(any::<u64>(), 0..50)) {
        let mut sender = SendCredit::default();
        for limit in limits {
            let before = sender;
            match sender.grant(limit) {
                Ok(()) => prop_assert!(sender.available() <= MAX_WINDOW),
                Err(error) => {
                    prop_assert_eq!(error, CreditError::Limit);
                    prop_assert_eq!(sender, before);
                }
            }
            sender.consume(sender.available() / 2)?;
        }
    }

    #[test]
    fn no_lengths_make_the_receiver_panic_or_take_more_than_granted(
        window: u64,
        lengths in vec((any::<u64>(), any::<u64>(), any::<u64>()), 0..50),
    ) {
        let mut receiver = ReceiveCredit::new(window);
        for (arriving, consuming, window) in lengths {
            receiver.grant_now();
            let room = receiver.granted() - receiver.received();
            prop_assert_eq!(receiver.on_received(arriving).is_ok(), arriving <= room);
            let _ = receiver.on_consumed(consuming);
            prop_assert!(receiver.consumed() <= receiver.received());
            receiver.set_window(window);
        }
    }
}

#[test]
fn a_limit_is_told_once_half_the_window_is_free() {
    let mut receiver = ReceiveCredit::new(100);
    assert_eq!(receiver.grant_now(), 100);
    assert_eq!(receiver.on_received(100), Ok(()));
    assert_eq!(receiver.on_received(1), Err(CreditError::Exceeded));
    assert_eq!(receiver.on_consumed(49), None);
    assert_eq!(receiver.on_consumed(1), Some(150));
    assert_eq!(receiver.on_consumed(49), None);
    assert_eq!(receiver.grant_now(), 199);
}

#[test]
fn a_limit_is_taken_only_upwards_and_only_within_a_window() {
    let mut sender = SendCredit::default();
    assert_eq!(sender.consume(1), Err(CreditError::Overdrawn));
    assert_eq!(sender.grant(MAX_WINDOW + 1), Err(CreditError::Limit));
    assert_eq!(sender.grant(MAX_WINDOW), Ok(()));
    assert_eq!(sender.grant(5), Ok(()));
    assert_eq!(sender.available(), MAX_WINDOW);
}

#[test]
fn a_smaller_window_takes_nothing_back_and_grants_again_later() {
    let mut receiver = ReceiveCredit::new(100);
    receiver.grant_now();
    receiver.set_window(10);
    assert_eq!(receiver.grant_now(), 100);
    assert_eq!(receiver.on_received(100), Ok(()));
    assert_eq!(receiver.on_consumed(94), None);
    assert_eq!(receiver.on_consumed(1), Some(105));
}
