//! The parties of a run by their roles, whatever process has the role at the moment.

use crate::field::{Field, Party};

/// One of the parties of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Server(usize),
    Client(usize),
    Agent(usize),
}

impl Who {
    /// The host of an agent.
    pub fn host(self) -> Option<usize> {
        if let Self::Agent(host) = self { Some(host) } else { None }
    }

    fn party<'f, 'w>(self, field: &'f mut Field<'w>) -> Option<&'f mut Party<'w>> {
        match self {
            Self::Server(index) => field.servers.get_mut(index),
            Self::Client(index) => field.clients.get_mut(index),
            Self::Agent(_) => None,
        }
    }

    /// The process, if it is there.
    pub fn pid(self, field: &mut Field<'_>) -> Option<u32> {
        match self {
            Self::Agent(host) => field.world.host(host).running_agent(),
            _ => self.party(field)?.program.as_ref().map(|program| program.pid()),
        }
    }

    /// The same, if nothing is done to it.
    pub fn free(self, field: &mut Field<'_>) -> Option<u32> {
        let engaged = match self {
            Self::Agent(host) => field.agents_engaged[host],
            _ => self.party(field)?.engaged,
        };
        self.pid(field).filter(|_| !engaged)
    }

    /// Something is done to it that will be undone, or is not any more.
    pub fn engage(self, field: &mut Field<'_>, on: bool) {
        match self {
            Self::Agent(host) => field.agents_engaged[host] = on,
            _ => {
                if let Some(party) = self.party(field) {
                    party.engaged = on;
                }
            }
        }
    }

    pub fn kill(self, field: &mut Field<'_>) {
        match self {
            Self::Agent(host) => field.world.host(host).kill_agent(),
            _ => {
                if let Some(party) = self.party(field) {
                    party.kill();
                }
            }
        }
    }

    pub fn start(self, field: &mut Field<'_>) {
        match self {
            Self::Server(kind) => field.start_server(kind),
            Self::Client(client) => field.start_client(client),
            Self::Agent(host) => field.world.host(host).start_agent(&["--insecure"]),
        }
    }
}
