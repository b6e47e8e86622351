//! The policy file as TOML has it, and making a policy of it. Not here: what it means for a connection.

use super::complaint::{complain, from_toml};
use super::matching::{Bytes, Network, Ports, Program, Scalar};
use super::{Limits, Policy, PolicyError, Rule, Spread};
use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    rule: Vec<Spanned<FileRule>>,
    #[serde(default)]
    rails: Rails,
    #[serde(default)]
    limits: Vec<FileLimits>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Defaults {
    accelerate: Option<bool>,
    join_users: Option<bool>,
    memory_per_user: Option<Bytes>,
    streams_per_user: Option<u64>,
    offers_per_second_per_user: Option<u64>,
    bytes_per_second_per_user: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    allow: bool,
    join_users: Option<bool>,
    rail: Option<String>,
    #[serde(default)]
    users: Vec<Spanned<Scalar>>,
    #[serde(default)]
    programs: Vec<Program>,
    #[serde(default)]
    local: Vec<Network>,
    #[serde(default)]
    remote: Vec<Network>,
    #[serde(default)]
    local_ports: Vec<Ports>,
    #[serde(default)]
    remote_ports: Vec<Ports>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Rails {
    #[serde(default)]
    spread: Spread,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLimits {
    #[serde(default)]
    users: Vec<Spanned<Scalar>>,
    memory: Option<Bytes>,
    streams: Option<u64>,
    offers_per_second: Option<u64>,
    bytes_per_second: Option<Bytes>,
}

/// See [`Policy::parse`].
pub(super) fn parse(text: &str, name: &str) -> Result<Policy, PolicyError> {
    let file: File = toml::from_str(text).map_err(|error| from_toml(name, text, &error))?;
    let complain = |at: usize, what: &str| complain(name, text, Some(at), what);
    let Defaults {
        accelerate,
        join_users,
        memory_per_user,
        streams_per_user,
        offers_per_second_per_user,
        bytes_per_second_per_user,
    } = file.defaults;
    let built_in = Policy::default();
    let limits = Limits {
        memory: memory_per_user.map_or(built_in.limits.memory, |bytes| bytes.0),
        streams: streams_per_user.unwrap_or(built_in.limits.streams),
        offers_per_second: offers_per_second_per_user.unwrap_or(built_in.limits.offers_per_second),
        bytes_per_second: bytes_per_second_per_user.map_or(built_in.limits.bytes_per_second, |bytes| bytes.0),
    };
    let mut policy = Policy {
        accelerate: accelerate.unwrap_or(built_in.accelerate),
        join_users: join_users.unwrap_or(built_in.join_users),
        rules: Vec::new(),
        spread: file.rails.spread,
        limits,
        user_limits: Vec::new(),
    };
    for rule in file.rule {
        let at = rule.span().start;
        let FileRule { allow, join_users, rail, users, programs, local, remote, local_ports, remote_ports } =
            rule.into_inner();
        if !allow && join_users == Some(true) {
            return Err(complain(
                at,
                "a rule with join_users = true allows nothing; allowed: with allow = true",
            ));
        }
        if !allow && rail.is_some() {
            return Err(complain(at, "a rule with a rail allows nothing; allowed: with allow = true"));
        }
        let users = uids(users, &complain)?;
        policy.rules.push(Rule {
            allow,
            join_users,
            rail,
            users,
            programs,
            local,
            remote,
            local_ports,
            remote_ports,
        });
    }
    for own in file.limits {
        let own_limits = Limits {
            memory: own.memory.map_or(limits.memory, |bytes| bytes.0),
            streams: own.streams.unwrap_or(limits.streams),
            offers_per_second: own.offers_per_second.unwrap_or(limits.offers_per_second),
            bytes_per_second: own.bytes_per_second.map_or(limits.bytes_per_second, |bytes| bytes.0),
        };
        policy.user_limits.push((uids(own.users, &complain)?, own_limits));
    }
    Ok(policy)
}

/// The numbers of users given by name or number.
fn uids(
    users: Vec<Spanned<Scalar>>,
    complain: &impl Fn(usize, &str) -> PolicyError,
) -> Result<Vec<u32>, PolicyError> {
    users.into_iter().map(|user| uid(&user).map_err(|what| complain(user.span().start, &what))).collect()
}

fn uid(user: &Spanned<Scalar>) -> Result<u32, String> {
    const ALLOWED: &str = "allowed: a name that this host knows, or a number";
    match user.get_ref() {
        Scalar::Number(number) => {
            u32::try_from(*number).map_err(|_| format!("{number} is no user's number; {ALLOWED}"))
        }
        Scalar::Text(name) => uzers::get_user_by_name(name)
            .map(|user| user.uid())
            .ok_or_else(|| format!("no user is named '{}'; {ALLOWED}", name.escape_debug())),
    }
}
