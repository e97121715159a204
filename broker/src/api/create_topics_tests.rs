use super::*;

#[test]
fn a_name_that_comes_twice_is_a_double() {
    assert_eq!(duplicates(["a", "b", "a", "c", "b"].into_iter()), BTreeSet::from(["a", "b"]));
    assert!(duplicates(["a", "b"].into_iter()).is_empty());
}

#[test]
fn a_request_has_so_many_partitions_in_all_and_no_more() {
    assert!(within_room(10, 10).is_ok());
    assert_eq!(within_room(11, 10).map_err(|(code, _)| code), Err(ResponseError::PolicyViolation));
    let config = Config::default();
    let topic = CreatableTopic::default();
    assert_eq!(partitions(&config, &topic.clone().with_num_partitions(-1)), 3);
    assert_eq!(partitions(&config, &topic.clone().with_num_partitions(-7)), 0);
    assert_eq!(partitions(&config, &topic.with_num_partitions(5)), 5);
}

#[test]
fn no_id_of_a_topic_begins_with_a_dash() {
    let id = topic_id(Uuid::from_u128(0xf9 << 120 | 7));
    assert_eq!(id.0.as_bytes()[0], 0x79);
    assert_eq!(topic_id(Uuid::from_u128(0xf4 << 120)).0.as_bytes()[0], 0xf4);
}
