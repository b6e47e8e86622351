//! The running agent hands over to a new one ([`super::take_over`]).

use super::engine::Engine;
use super::take_over::Knowledge;
use convoy_runtime::agent::protocol::{Message, Part, Versions};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What of this agent others may need after it.
pub(super) struct Succession {
    /// The place of a new agent among the programs, which has got everything and not said so yet.
    pub(super) heir: Option<usize>,
    /// It has: this agent ends.
    pub(super) is_over: bool,
    /// A copy of the socket that other agents connect to.
    pub(super) agents: TcpListener,
    /// The address for questions by TCP, as it was asked for.
    pub(super) metrics: Option<SocketAddr>,
}

impl Succession {
    pub(super) fn new(agents: TcpListener, metrics: Option<SocketAddr>) -> Self {
        Self { heir: None, is_over: false, agents, metrics }
    }
}

impl Engine {
    /// A new agent asks for everything.
    pub(super) fn offer_succession(&mut self, index: usize, asked: Versions) -> Result<(), &'static str> {
        let Some(heir) = self.programs[index].as_ref() else { return Ok(()) };
        let (pid, uid) = (heir.session.pid, heir.session.uid);
        if uid != rustix::process::geteuid().as_raw() || heir.port.is_some() {
            return Err("it may not take over");
        }
        if asked != Versions::OWN {
            let (own, asked) = (Versions::OWN, (asked.protocol, asked.state));
            tracing::warn!(pid, ?asked, own = ?(own.protocol, own.state), "no hand-over to an agent of another version");
            heir.session.send(Message::Refused(own), None);
            return Ok(());
        }
        if self.succession.heir.is_some() {
            return Err("another agent is taking over");
        }
        let knowledge = self.knowledge().map_err(|_| "there is no memory for what it should know")?;
        let send =
            |part, descriptor: BorrowedFd<'_>| heir.session.send(Message::Part(part), Some(descriptor));
        let sent = send(Part::Programs, self.server.as_fd())
            && send(Part::Agents, self.succession.agents.as_fd())
            && send(Part::Status, self.served.unix.as_fd())
            && self.served.tcp.as_ref().is_none_or(|tcp| send(Part::Metrics, tcp.as_fd()))
            && send(Part::Knowledge, knowledge.as_fd())
            && heir.session.send(Message::AllParts(Versions::OWN), None);
        if !sent {
            return Err("it does not take what it has asked for");
        }
        tracing::info!(pid, "another agent is about to take over");
        self.set_heir(Some(index));
        Ok(())
    }

    /// The new agent has everything, and works.
    pub(super) fn handed_over(&mut self, index: usize) -> Result<(), &'static str> {
        if self.succession.heir != Some(index) {
            return Err("it has nothing to take over");
        }
        self.succession.is_over = true;
        Ok(())
    }

    /// A program is gone: if it was to become the agent here, this one stays.
    pub(super) fn is_no_heir(&mut self, index: usize) {
        if self.succession.heir == Some(index) && !self.succession.is_over {
            tracing::warn!("the agent that was about to take over is gone; this one goes on");
            self.set_heir(None);
        }
    }

    /// While there is one, the files of sockets may be its.
    fn set_heir(&mut self, heir: Option<usize>) {
        self.succession.heir = heir;
        self.server.leave_file = heir.is_some();
        self.served.leave_file = heir.is_some();
    }

    fn knowledge(&self) -> io::Result<OwnedFd> {
        let sessions = self.broker.hosts.values().flat_map(|host| &host.sessions);
        let knowledge = Knowledge {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            metrics: self.succession.metrics,
            hosts: sessions.map(|(_, address)| *address).collect(),
        };
        let mut file = File::from(memfd_create("convoy-knowledge", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(&knowledge)?)?;
        Ok(file.into())
    }
}
