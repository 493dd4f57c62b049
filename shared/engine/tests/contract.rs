//! The memory store keeps the contract of the ports.

use carillon_engine::memory::Memory;

carillon_engine::contract_tests!(Memory::default());

/// A rule that no adapter runs would prove nothing.
#[test]
fn every_rule_of_the_contract_is_run() {
    let source = include_str!("../src/contract.rs");
    let (_, list) = source.split_once("@each $store =>").expect("the list of the rules");
    let (list, _) = list.split_once('}').expect("its end");
    let listed: Vec<_> = list.split_whitespace().collect();
    let written: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("pub async fn "))
        .filter_map(|line| line.split_once('<').map(|(name, _)| name))
        .collect();
    assert_eq!(listed, written);
}
