//! From two offers to a stream: the agent of the end with the lower address opens it, the other one agrees or refuses.

use super::super::engine::Engine;
use super::super::link::LinkState;
use super::super::message::Message;
use super::super::sessions::Ends;
use super::{LocalOffer, OfferState};
use convoy_runtime::agent::protocol::{self, Reason};

impl Engine {
    /// Opens a stream if both ends want it and it is this side's to open.
    pub(super) fn meet(&mut self, ends: Ends) {
        let Some(offer) = self.broker.local.get(&ends) else { return };
        let Some(remote) = self.broker.remote.get(&ends) else { return };
        let opens = ends.local < ends.remote && offer.state == OfferState::Waiting;
        let rail = offer.rail.as_deref();
        let Some(link) = self.choose_link(remote.instance, &ends, rail).filter(|_| opens) else { return };
        let (program, id) = (offer.program, offer.id);
        let Some(stream) = self.links[link].as_mut().and_then(|link| link.queue.next_stream(self.now_us))
        else {
            return;
        };
        let Some((slot, generation)) = self.enter_stream(program, id, link, stream, true, ends) else {
            self.links[link].iter_mut().for_each(|link| link.queue.return_stream(stream));
            self.decline_ends(&ends, Reason::Limit);
            return;
        };
        if let Some(offer) = self.broker.local.get_mut(&ends) {
            offer.state = OfferState::Opening { link, stream, slot, generation };
        }
        self.broker.remote.remove(&ends);
        let token = self.links[link].as_ref().map_or(0, |link| link.token);
        self.tell(link, &Message::Open { local: ends.local, remote: ends.remote, token, stream });
    }

    fn enter_stream(
        &mut self,
        program: usize,
        id: u64,
        link: usize,
        stream: u32,
        ours: bool,
        ends: Ends,
    ) -> Option<(u32, u8)> {
        let worth = self.links[link].as_ref().is_some_and(|link| {
            link.worth.gathers() || self.rails.get(link.rail).is_some_and(|rail| rail.worth_always)
        });
        let known = self.programs.get_mut(program)?.as_mut()?;
        let (slot, generation) = known.open(link, stream, id, worth)?;
        known.slot(slot)?.ends = Some(ends);
        let entered = self.links[link].as_mut().is_some_and(|link| {
            let entered = link.queue.enter(stream, program, slot, ours);
            link.counters.streams_opened += u64::from(entered);
            entered
        });
        if !entered {
            self.programs.get_mut(program)?.as_mut()?.free(slot);
            return None;
        }
        let uid = self.programs.get(program)?.as_ref()?.session.uid;
        self.users.count_stream(uid, true);
        self.look_soon();
        Some((slot, generation))
    }

    /// The other agent has opened a stream for a connection.
    pub(in super::super) fn on_open(&mut self, instance: u128, ends: Ends, token: u64, stream: u32) {
        let link = self.links.iter().position(|link| {
            link.as_ref().is_some_and(|link| {
                // The other side may know a moment earlier that the link is up.
                link.token == token && link.host == instance && link.state != LinkState::Proposed
            })
        });
        let Some(link) = link else { return };
        let answer = match self.try_open(instance, ends, link, stream) {
            Ok(()) => Message::Opened { local: ends.local, remote: ends.remote, token, stream },
            Err(reason) => {
                let reason = reason.to_owned();
                Message::Refused { local: ends.local, remote: ends.remote, token, stream, reason }
            }
        };
        self.tell(link, &answer);
    }

    fn try_open(&mut self, instance: u128, ends: Ends, link: usize, stream: u32) -> Result<(), &'static str> {
        if !self.broker.speaks_for(instance, ends.remote.ip()) || ends.local < ends.remote {
            return Err("not yours to open");
        }
        let waiting = self.broker.local.get(&ends).filter(|offer| offer.state == OfferState::Waiting);
        let Some((program, id)) = waiting.map(|offer| (offer.program, offer.id)) else {
            return Err("not offered");
        };
        let entered = self.enter_stream(program, id, link, stream, false, ends);
        let (slot, generation) = entered.ok_or("no room")?;
        self.broker.local.remove(&ends);
        self.broker.remote.remove(&ends);
        self.tell_program(program, protocol::Message::Opened { id, slot, generation });
        Ok(())
    }

    /// The other agent agrees to a stream, or does not.
    pub(in super::super) fn on_opened(
        &mut self,
        instance: u128,
        ends: &Ends,
        token: u64,
        stream: u32,
        agreed: bool,
    ) {
        let Some(link) = self.link_of(instance, token) else { return };
        let offer = self.broker.local.get(ends).map(|offer| (offer.program, offer.id, offer.state));
        let opening = offer.and_then(|(program, id, state)| {
            let (of_link, number, slot) = state.stream()?;
            ((of_link, number) == (link, stream)).then_some((program, id, state, slot))
        });
        let Some((program, id, state, slot)) = opening else {
            // What the other was told of the end came before it knew the stream.
            if let Some(link) = self.links[link].as_mut().filter(|_| agreed) {
                link.queue.disown(stream);
            }
            return;
        };
        self.broker.local.remove(ends);
        match (agreed, state) {
            (true, OfferState::Opening { generation, .. }) => {
                self.tell_program(program, protocol::Message::Opened { id, slot, generation });
            }
            (true, _) => {
                if let Some(link) = self.links[link].as_mut() {
                    link.queue.close_again(stream);
                }
                self.close_here(program, slot);
            }
            (false, _) => {
                if let Some(link) = self.links[link].as_mut() {
                    link.queue.leave(stream);
                }
                self.free_slot(program, slot);
                self.decline(program, id, Reason::Policy);
            }
        }
    }

    /// The other agent does not answer: if it has opened the stream, it hears that it is lost.
    pub(super) fn give_up_opening(&mut self, ends: &Ends) {
        let Some(offer) = self.broker.local.get(ends) else { return };
        let program = offer.program;
        let Some((link, stream, slot)) = offer.state.stream() else { return };
        if let Some(link) = self.links.get_mut(link).and_then(Option::as_mut) {
            link.queue.abandon(stream, self.now_us);
        }
        self.free_slot(program, slot);
    }

    /// Offers that are being opened on a link that is about to go end.
    pub(in super::super) fn forget_opening(&mut self, index: usize) {
        let opening = |offer: &LocalOffer| offer.state.stream().is_some_and(|(link, ..)| link == index);
        for ends in self.broker.local_where(|_, offer| opening(offer)) {
            self.give_up_opening(&ends);
            self.decline_ends(&ends, Reason::NoPeer);
        }
    }
}
