//! Programs of this host: their connections to the agent, and what they say there.

use super::engine::Engine;
use super::joint::Joint;
use super::program::{NO_LINK, Program};
use super::users::Hearing;
use super::wait::Token;
use convoy_runtime::agent::protocol::{Message, Reason, VERSION};
use convoy_runtime::agent::server::{self, Heard};
use convoy_runtime::port::{Lie, Port, SlotState};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

/// Both addresses of a connection, as seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// Why the channel of a program ends that lives and does not use it any more.
pub(super) const GAVE_UP: &str = "it has had no answer for too long";

impl Ends {
    /// The connection whose other end says that it is `local`, to `remote`.
    pub(super) fn of_other(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local: canonical(remote), remote: canonical(local) }
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} - {}", self.local, self.remote)
    }
}

/// IPv4 addresses mapped into IPv6 as IPv4, and nothing but address and port.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

const NO_PROTOCOL: &str = "it does not speak the protocol";
const TOO_MANY: &str = "its user makes the agent hold as many descriptors as there may be";

/// Messages of one program that are heard before others are.
const MESSAGES_IN_A_TURN: u32 = 256;
/// Programs that are taken in before others are heard: whoever connects without end must not keep the engine here.
const PROGRAMS_IN_A_TURN: u32 = 256;

impl Engine {
    pub(super) fn accept_programs(&mut self) {
        for _ in 0..PROGRAMS_IN_A_TURN {
            let Some(session) = self.server.accept() else { return };
            let uid = session.uid;
            if !self.users.add_descriptor(uid, &self.broker.policy, Instant::now()) {
                if self.users.may_be_named(uid, Instant::now()) {
                    tracing::warn!(pid = session.pid, user = uid, "{TOO_MANY}");
                }
                self.users.close(uid, session.into());
                if self.users.hearing(uid, Instant::now()) != Hearing::Now {
                    return;
                }
                continue;
            }
            let index = self.programs.iter().position(Option::is_none).unwrap_or(self.programs.len());
            if self.waiter.add(session.as_fd(), Token::Program(index)).is_err() {
                self.users.remove_descriptors(uid, 1);
                self.users.close(uid, session.into());
                continue;
            }
            let name = std::fs::read_link(format!("/proc/{}/exe", session.pid))
                .map(|path| path.to_string_lossy().into_owned())
                .unwrap_or_default();
            tracing::debug!(pid = session.pid, user = session.uid, program = name, "program connected");
            self.next_program += 1;
            let program = Some(Program::new(session, self.next_program, name));
            match self.programs.get_mut(index) {
                Some(place) => *place = program,
                None => self.programs.push(program),
            }
        }
    }

    /// Takes what a program has said; what is left of much keeps the socket readable.
    pub(super) fn hear_program(&mut self, index: usize) {
        for _ in 0..MESSAGES_IN_A_TURN {
            let Some(program) = self.programs.get_mut(index).and_then(Option::as_mut) else { return };
            let uid = program.session.uid;
            match self.users.hearing(uid, Instant::now()) {
                Hearing::Now => {}
                Hearing::Later => return,
                Hearing::Never => return self.drop_program(index, TOO_MANY),
            }
            match program.session.receive() {
                Heard::Message(message, mut passed) => {
                    let heard = self.on_message(index, message, &mut passed);
                    self.users.close_all(uid, passed);
                    if let Err(reason) = heard {
                        return self.drop_program(index, reason);
                    }
                }
                Heard::Nothing => return,
                Heard::Nonsense(passed) => {
                    self.users.close_all(uid, passed);
                    return self.drop_program(index, NO_PROTOCOL);
                }
                Heard::End => return self.program_ended(index),
            }
        }
    }

    fn on_message(
        &mut self,
        index: usize,
        message: Message,
        passed: &mut Vec<OwnedFd>,
    ) -> Result<(), &'static str> {
        match (message, passed.as_slice()) {
            (Message::Hello { version: VERSION, identity, .. }, [segment, bells]) => {
                self.welcome(index, identity, segment, bells)
            }
            (Message::Hello { .. }, _) => Err("it is of another version"),
            (Message::Ask { id }, []) => {
                self.tell_program(index, Message::Show { id });
                Ok(())
            }
            (Message::Offer { id }, [socket]) => {
                match self.ends_of(socket) {
                    Some(ends) => self.offer(index, id, ends),
                    None => self.decline(index, id, Reason::Invalid),
                }
                Ok(())
            }
            // The kernel had no room for its socket.
            (Message::Offer { id }, []) => {
                self.decline(index, id, Reason::Limit);
                Ok(())
            }
            (Message::Ping, _) => {
                self.tell_program(index, Message::Ping);
                Ok(())
            }
            (Message::Withdraw { id }, _) => {
                self.withdraw(index, id);
                Ok(())
            }
            (Message::Bell { number }, [fifo]) if server::is_fifo(fifo.as_fd()) => {
                passed.pop().map_or(Ok(()), |fifo| self.take_bell(index, number, fifo))
            }
            (Message::Bell { .. }, [_]) => Err("its bell is no FIFO"),
            (Message::TakeOver(versions), []) => self.offer_succession(index, versions),
            (Message::Taken, []) => self.handed_over(index),
            _ => Err(NO_PROTOCOL),
        }
    }

    fn welcome(
        &mut self,
        index: usize,
        identity: u64,
        segment: &OwnedFd,
        bells: &OwnedFd,
    ) -> Result<(), &'static str> {
        let Some(program) = self.programs[index].as_mut().filter(|program| program.port.is_none()) else {
            return Err("it says hello twice");
        };
        let port = Port::attach(segment.as_fd(), bells.as_fd(), identity);
        let port = port.map_err(|_| "its memory cannot be used")?;
        let uid = program.session.uid;
        if !self.users.add_program(uid, port.bytes(), &self.broker.policy, Instant::now()) {
            return Err("its user has as much memory as the policy allows");
        }
        let doorbell = server::doorbell().map_err(|_| "descriptors have run out")?;
        self.waiter.add(doorbell.as_fd(), Token::Doorbell(index)).map_err(|_| "memory has run out")?;
        program.session.send(Message::Welcome { version: VERSION }, Some(doorbell.as_fd()));
        program.port = Some(port);
        program.doorbell = Some(doorbell);
        program.awake = true;
        Ok(())
    }

    /// A bell by which a thread of a program is woken.
    fn take_bell(&mut self, index: usize, number: u16, fifo: OwnedFd) -> Result<(), &'static str> {
        let Some(program) = self.programs[index].as_mut() else { return Ok(()) };
        let (uid, Some(port)) = (program.session.uid, program.port.as_mut()) else { return Ok(()) };
        match port.set_bell(number, fifo).map_err(|_| "it has no such bell")? {
            Some(_) => Ok(()),
            None if self.users.add_descriptor(uid, &self.broker.policy, Instant::now()) => {
                program.descriptors += 1;
                Ok(())
            }
            None => Err(TOO_MANY),
        }
    }

    /// What a socket that a program has passed is connected to, if it is a TCP connection of this network namespace.
    fn ends_of(&self, socket: &OwnedFd) -> Option<Ends> {
        let protocol = rustix::net::sockopt::socket_protocol(socket).ok()?;
        if protocol != Some(rustix::net::ipproto::TCP)
            || server::network_of(Some(socket.as_fd())).ok()? != self.network
        {
            return None;
        }
        let local = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
        let remote = SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok()?;
        let link_local = |address: IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        (!link_local(remote.ip())).then(|| Ends { local: canonical(local), remote: canonical(remote) })
    }

    /// A program has ended, or its last copy of the socket is closed: what it has sent is passed on, and then the end of
    /// its streams. One that takes this agent for gone goes on without it.
    fn program_ended(&mut self, index: usize) {
        let Some(program) = self.programs[index].as_mut() else { return };
        if program.has_given_up() {
            return self.drop_program(index, GAVE_UP);
        }
        tracing::debug!(pid = program.session.pid, program = program.name, "program ended");
        self.waiter.remove(program.session.as_fd());
        program.gone = true;
        program.awake = true;
        self.is_no_heir(index);
        self.withdraw_all(index);
        self.collect_from(index);
        let Some(program) = self.programs[index].as_mut() else { return };
        let held = core::mem::take(&mut program.overflow);
        held.iter().for_each(|held| self.hand_over(held.origin));
        let Some(program) = self.programs[index].as_ref() else { return };
        let open: Vec<u32> =
            program.streams().filter(|(_, slot)| !slot.here_closed).map(|(slot, _)| slot).collect();
        open.into_iter().for_each(|slot| self.close_here(index, slot));
    }

    /// Forgets a program that has ended, when nothing of it is on its way any more.
    pub(super) fn bury_programs(&mut self) {
        for index in 0..self.programs.len() {
            let over = self.programs[index].as_ref().is_some_and(|program| {
                program.gone && program.streams().next().is_none() && !program.retains()
            });
            if over && let Some(program) = self.programs[index].take() {
                self.give_memory_back(&program);
                self.links.iter_mut().flatten().for_each(|link| link.queue.forget_program(index));
                self.users.close(program.session.uid, program.session.into());
            }
        }
    }

    fn give_memory_back(&mut self, program: &Program) {
        self.registrations.forget(&mut self.rails, program.serial);
        self.users.remove_descriptors(program.session.uid, program.descriptors);
        if let Some(port) = &program.port {
            self.users.remove_program(program.session.uid, port.bytes());
        }
    }

    /// Ends the channel of a program that has written what cannot be.
    pub(super) fn drop_liar(&mut self, index: usize, Lie(what): Lie) {
        // One that is through with this agent, or has ended, gives its memory back.
        let is_over = |program: &Program| program.has_given_up() || program.session.has_ended();
        if self.programs[index].as_ref().is_some_and(is_over) {
            return self.drop_program(index, GAVE_UP);
        }
        self.drop_program(index, &format!("it broke the rules of its channel: {what}"));
    }

    /// Ends a program's channel: its streams cannot go on here.
    pub(super) fn drop_program(&mut self, index: usize, reason: &str) {
        let Some(program) = self.programs[index].take() else { return };
        self.dropped = true;
        if self.users.may_be_named(program.session.uid, Instant::now()) {
            tracing::warn!(pid = program.session.pid, program = program.name, reason, "program dropped");
        }
        self.waiter.remove(program.session.as_fd());
        self.is_no_heir(index);
        self.give_memory_back(&program);
        program.streams().for_each(|_| self.users.count_stream(program.session.uid, false));
        self.forget_offers(index);
        for link in self.links.iter_mut().flatten() {
            link.queue.forget_program(index);
        }
        let joint: Vec<Joint> = program.streams().filter_map(|(_, slot)| slot.joint).collect();
        self.lose_streams(joint);
        for (_, slot) in program.streams() {
            if let Some(link) = self.links.get_mut(slot.link).and_then(Option::as_mut) {
                link.queue.abandon(slot.stream, self.now_us);
            }
        }
        // After that, for which they wait.
        program.overflow.iter().for_each(|held| self.drop_held(held.origin));
        // With what it has sent and nobody will hear.
        self.users.close(program.session.uid, program.session.into());
    }

    /// The way to the other host is gone: programs are told.
    pub(super) fn lose_streams(&mut self, lost: Vec<(usize, u32)>) {
        for (index, slot) in lost {
            let Some(program) = self.programs[index].as_mut() else { continue };
            let pid = program.session.pid;
            let Some(known) = program.slot(slot) else { continue };
            known.link = NO_LINK;
            known.joint = None;
            if known.there_closed {
                // Everything has come, and nobody reads any more: the end is told as it was.
                program.finish_of(slot);
                self.end_if_over(index, slot);
                continue;
            }
            known.lost = true;
            if let Some(ends) = known.ends {
                tracing::debug!(%ends, pid, slot, "a stream has lost its way to the other host");
            }
            let (generation, closed) = (known.generation, known.here_closed);
            if let Some(port) = &mut program.port {
                port.publish();
                port.set_state(slot, generation, SlotState::Lost);
            }
            self.touched.push((index, slot));
            program.tell(Message::Lost { slot, generation });
            // It may have returned to the kernel before this agent knew why.
            let _ = program.news(slot, u64::MAX, |_| {});
            if closed {
                program.finish_of(slot);
                self.end_if_over(index, slot);
            }
        }
        self.wake_touched();
    }
}
