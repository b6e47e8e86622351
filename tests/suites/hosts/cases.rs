//! The cases of the test programs with the other end on another host, natively and under Convoy. Left out are those that ask at a
//! moment for what takes an answer of the other host, those that hand on bytes that cannot be handed on between hosts
//! (docs/compatibility.md), and those of edges, which may be told twice.

use convoy_tests::hosts::{Plan, World};
use convoy_tests::{HOST_VARIANTS, compare};

use crate::common::{Expect, TCP, acquaint, check, convoy};
use crate::random::on_hosts;

macro_rules! cases_between_hosts {
    ($($name:ident: $program:literal,)*) => {
        $(#[test] fn $name() { cases(convoy_tests::program!($program)); })*
    };
}

cases_between_hosts!(
    calls: "calls",
    connecting: "connecting",
    epoll: "epoll",
    flags: "flags",
    pressure: "pressure",
    readiness: "readiness",
    threads: "threads",
);

fn cases(program: &str) {
    convoy(TCP, &Plan::pair(), |world| {
        world.start_agents();
        acquaint(world, 1, 0);
        let host = world.host(0);
        let listed = host.run(host.plain(program, &["list"]));
        let same = listed.lines().filter(|case| !case.starts_with("edge"));
        same.for_each(|case| {
            HOST_VARIANTS.iter().for_each(|variant| compare_case(world, program, case, variant))
        });
        check(world, Expect::Far);
    });
}

fn compare_case(world: &World, program: &str, case: &str, variant: &str) {
    let host = world.host(0);
    let native = host.try_run(on_hosts(world, host.plain(program, &[case, variant])));
    let other = host.try_run(on_hosts(world, host.command(program, &[case, variant])));
    let works = native.status.success();
    world.check(works, &format!("{case} {variant} does not work natively\n{}", native.stderr));
    let difference = compare::differ((&native.stdout, native.status), (&other.stdout, other.status));
    let why = difference.map(|difference| format!("{case} {variant}: {difference}\n{}", other.stderr));
    world.check(why.is_none(), &why.unwrap_or_default());
}
