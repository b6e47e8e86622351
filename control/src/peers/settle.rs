//! From a secure connection to the decision that it is used: hellos, then one of the two agents decides.
//! Not here: keys before it ([`crate::secure`]), reading and writing after it (`link`).
//!
//! The dialer says hello, then the listener. If either finds that the two cannot work together, it says so
//! with its reason and closes. Otherwise the agent with the smaller instance decides:
//!
//! 1. The other one numbers its connections to the decider in the order in which they get here, and
//!    proposes this one with its number and the numbers of those of the same pair that it still has.
//! 2. The decider refuses it as a duplicate if it has a connection of the pair already, unless that one is
//!    dead at the other end: older than the proposed one and not among those that the other end still has.
//!    Then, the new one replaces it.
//! 3. It accepts, numbering its acceptances. When several were accepted one after the other because the
//!    earlier ones died, the other end uses the newest.
//!
//! So both ends use the same one of any number of simultaneous connections, and an agent that lost a
//! connection can have a new one before the decider has noticed. These records are the same in all
//! protocol versions.

use super::link::{Link, readable};
use super::net::Timed;
use super::shared::{Admission, Pair, Shared, Table};
use crate::hello::{Hello, decode_json, encode_json};
use crate::lock::lock;
use crate::secure::handshake::{read_some, send};
use crate::secure::wire::Kind;
use crate::secure::{Fault, Opener, Refusal, Sealer};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

const CHUNK: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Refuse {
    /// A [`Refusal::label`], perhaps of a newer agent.
    why: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Propose {
    number: u64,
    #[serde(default)]
    live: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Accept {
    order: u64,
}

/// A connection that has come as far as its first sealed record.
pub(super) struct Candidate<'a> {
    pub(super) shared: &'a Shared,
    pub(super) stream: &'a Arc<TcpStream>,
    /// Its number in [`Table::pending`].
    pub(super) pending: u64,
    pub(super) timed: Timed<'a>,
    pub(super) sealer: Sealer,
    pub(super) opener: Opener,
    pub(super) local: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) dialed: bool,
}

impl Candidate<'_> {
    /// Settles whether the connection is used. If so, the peer is up, and its threads must be started.
    pub(super) fn settle(mut self) -> Result<(Arc<Link>, Sealer, Opener), Fault> {
        match self.decide() {
            Ok(link) => Ok((link, self.sealer, self.opener)),
            Err((fault, told)) => {
                if !told {
                    self.refuse(&fault);
                }
                Err(fault)
            }
        }
    }

    /// The bool of an error: the other end knows.
    fn decide(&mut self) -> Result<Arc<Link>, (Fault, bool)> {
        let mine = |fault: Fault| (fault, false);
        if self.dialed {
            let hello = self.shared.hello.encode().map_err(mine)?;
            self.send(Kind::Hello, &hello)?;
        }
        let mut hello = Hello::decode(&self.expect(Kind::Hello)?).map_err(mine)?;
        hello.name = readable(hello.name.as_bytes());
        let agreement = self.shared.hello.agree(&hello).map_err(mine)?;
        if !self.dialed {
            let hello = self.shared.hello.encode().map_err(mine)?;
            self.send(Kind::Hello, &hello)?;
        }
        let pair = Pair { instance: hello.instance, local: self.local, remote: self.remote };
        let decides = self.shared.hello.instance < hello.instance;
        let admission = Admission {
            stream: Arc::clone(self.stream),
            pair,
            hello,
            agreement,
            dialed: self.dialed,
            rank: 0,
            claim: None,
        };
        if decides { self.accept(admission) } else { self.propose(admission) }
    }

    fn accept(&mut self, admission: Admission) -> Result<Arc<Link>, (Fault, bool)> {
        let text = self.expect(Kind::Propose)?;
        let Propose { number, live } = decode_json(&text, "proposal").map_err(|fault| (fault, false))?;
        let (link, order) = {
            let mut table = lock(&self.shared.table);
            let taken = |rank: u64| rank > number || live.contains(&rank);
            if table.up.values().any(|entry| entry.pair == admission.pair && taken(entry.rank)) {
                return Err((duplicate(), false));
            }
            let link = self.admit(&mut table, Admission { rank: number, ..admission })?;
            (link, table.number())
        };
        let text = encode_json(&Accept { order }).map_err(|fault| (fault, false));
        if let Err((fault, told)) = text.and_then(|text| self.send(Kind::Accept, &text)) {
            self.shared.fail(&link, &fault.reason);
            lock(&self.shared.table).links.remove(&link.peer);
            return Err((fault, told));
        }
        Ok(link)
    }

    fn propose(&mut self, admission: Admission) -> Result<Arc<Link>, (Fault, bool)> {
        let (number, live) = {
            let mut table = lock(&self.shared.table);
            let same = table.claims.iter().filter(|(_, pair)| **pair == admission.pair);
            let live: Vec<u64> = same.map(|(number, _)| *number).collect();
            let number = table.number();
            table.claims.insert(number, admission.pair);
            (number, live)
        };
        let answered = encode_json(&Propose { number, live })
            .map_err(|fault| (fault, false))
            .and_then(|text| self.send(Kind::Propose, &text))
            .and_then(|()| self.expect(Kind::Accept))
            .and_then(|text| decode_json(&text, "acceptance").map_err(|fault| (fault, false)));
        let mut table = lock(&self.shared.table);
        let admitted = answered.and_then(|Accept { order }| {
            if table.up.values().any(|entry| entry.pair == admission.pair && entry.rank > order) {
                return Err((duplicate(), false));
            }
            self.admit(&mut table, Admission { rank: order, claim: Some(number), ..admission })
        });
        if admitted.is_err() {
            table.claims.remove(&number);
        }
        admitted
    }

    fn admit(&self, table: &mut Table, admission: Admission) -> Result<Arc<Link>, (Fault, bool)> {
        if table.stopping {
            return Err((Fault::new(Refusal::Stopping, "the agent is shutting down"), false));
        }
        if table.pending.remove(&self.pending).is_none() {
            return Err((Fault::new(Refusal::Crowded, "too many connections at once"), false));
        }
        Ok(self.shared.admit(table, admission))
    }

    fn send(&mut self, kind: Kind, body: &[u8]) -> Result<(), (Fault, bool)> {
        let mut out = Vec::new();
        self.sealer.seal(kind, body, &mut out).map_err(|fault| (fault, false))?;
        send(&mut self.timed, &out).map_err(|fault| (fault, true))
    }

    /// The body of the next record, which must be of `kind`.
    fn expect(&mut self, kind: Kind) -> Result<Vec<u8>, (Fault, bool)> {
        loop {
            match self.opener.record().map_err(|fault| (fault, false))? {
                Some((found, body)) if found == kind => return Ok(body.to_vec()),
                Some((Kind::Refuse, body)) => return Err((refused(body), true)),
                Some((found, _)) => {
                    let reason = format!("a record of kind {found:?} where {kind:?} was due");
                    return Err((Fault::new(Refusal::Malformed, reason), false));
                }
                None => {}
            }
            let mut chunk = [0; CHUNK];
            let count = read_some(&mut self.timed, &mut chunk).map_err(|fault| (fault, true))?;
            self.opener.push(&chunk[..count]);
        }
    }

    /// Tells the other end why the connection is not used, if it still listens.
    fn refuse(&mut self, fault: &Fault) {
        let refuse = Refuse { why: fault.refusal.label().to_owned(), reason: fault.reason.clone() };
        if let Ok(text) = encode_json(&refuse) {
            let _ = self.send(Kind::Refuse, &text);
        }
    }
}

fn duplicate() -> Fault {
    Fault::new(Refusal::Duplicate, "another connection between the two agents is used")
}

/// What the other end's refusal says.
fn refused(body: &[u8]) -> Fault {
    let Ok(Refuse { why, reason }) = decode_json(body, "refusal") else {
        return Fault::new(Refusal::Malformed, "the peer refused for a reason that cannot be read");
    };
    let refusal = Refusal::from_label(&why).unwrap_or(Refusal::Malformed);
    Fault::new(refusal, format!("refused by the peer: {}", readable(reason.as_bytes())))
}
