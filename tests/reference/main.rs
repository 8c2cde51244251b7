//! Random operations by several agents, on a real mount and in a plain model side by side: every one
//! must end the same way, and the whole tree must be the same after it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod model;
mod operations;

use common::{Fixture, count_from_env};
use model::{DOMAINS, Model};
use operations::{Operation, Prepared, Real, operation};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn agrees(operations: &[Operation]) -> Result<(), TestCaseError> {
    let fixture = Fixture::new();
    // Neither time nor floods are in the model.
    fixture.configure_key("incidents_per_minute", "0");
    fixture.configure_key("turns_per_thread", "0");
    let days = r#"{"T0_HEADS_DOWN":86400,"T1_active":86400,"T2_idle":86400,"T3_long_idle":86400}"#;
    std::fs::write(fixture.dir().join("tiers.json"), days).unwrap();
    let domains = DOMAINS.map(|(domain, owners)| format!("{domain} = {owners:?}"));
    fixture.configure_domains(&domains.join("\n"));
    let prepared = Prepared::new(&fixture);
    let mut real = Real::new(&fixture);
    let mut model = Model::default();
    for (n, operation) in operations.iter().enumerate() {
        let (seen, wanted) = real.apply(operation, &prepared, &mut model);
        prop_assert_eq!(seen, wanted, "operation {} {:?}", n, operation);
        prop_assert_eq!(
            real.content(&prepared, n % 3),
            model.content(),
            "after operation {} {:?}",
            n,
            operation
        );
    }
    drop(real);
    let verified = fixture.baton(&["verify", fixture.dir().to_str().expect("the path is UTF-8")]);
    prop_assert_eq!(verified.status, 0, "baton verify: {}{}", verified.stdout, verified.stderr);
    Ok(())
}

#[test]
fn the_mount_does_what_the_model_says() {
    let cases = count_from_env("BATON_TEST_CASES", 64) as u32;
    let config = Config { cases, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(operation(), 1..90), |operations| agrees(&operations))
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_whole_handoff_is_in_the_model_too() {
    let life = [
        Operation::Publish { agent: 1, payload: 0, name: 0 },
        Operation::Publish { agent: 1, payload: 0, name: 1 },
        Operation::Rename { agent: 2, from: (0, 0), to: (1, 0) },
        Operation::Rename { agent: 0, from: (0, 0), to: (1, 0) },
        Operation::Rename { agent: 0, from: (0, 0), to: (1, 0) },
        Operation::Remount,
        Operation::Rename { agent: 0, from: (1, 0), to: (2, 1) },
        Operation::Publish { agent: 1, payload: 1, name: 0 },
        Operation::Unlink { agent: 1, state: 0, name: 0 },
    ];
    agrees(&life).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_decision_and_its_crashes_are_in_the_model_too() {
    // Numbers of forms, as operations.rs has them; outboxes are 3, 4 and 5.
    let seal = |agent, log, form| Operation::Seal { agent, log, form, as_other: false };
    let life = [
        seal(1, 4, 7),
        seal(0, 3, 12),
        Operation::Kill { loss: 0 },
        seal(2, 5, 12),
        seal(1, 4, 9),
        seal(2, 5, 10),
        seal(0, 3, 13),
        Operation::Kill { loss: 1 },
        seal(0, 3, 14),
        seal(2, 5, 14),
        seal(2, 9, 5),
        Operation::Kill { loss: 2 },
        seal(1, 6, 0),
        Operation::Remount,
        seal(1, 4, 4),
    ];
    agrees(&life).unwrap_or_else(|failure| panic!("{failure}"));
}
