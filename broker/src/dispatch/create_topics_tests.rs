use super::*;

fn ids(numbers: &[i32]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

#[test]
fn leaders_take_turns_and_replicas_are_distinct() {
    let spread = spread(&ids(&[1, 2, 3]), 1, 4, 2);
    assert_eq!(spread, [ids(&[2, 3]), ids(&[3, 1]), ids(&[1, 2]), ids(&[2, 3])]);
}

#[test]
fn a_name_that_comes_twice_is_a_double() {
    assert_eq!(doubles(["a", "b", "a", "c", "b"].into_iter()), BTreeSet::from(["a", "b"]));
    assert!(doubles(["a", "b"].into_iter()).is_empty());
}
