//! The version table: what is served and what is advertised, which is exactly the same but for Produce.

use kafka_protocol::messages::ApiKey;

/// One API and its versions.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    pub key: ApiKey,
    /// What ApiVersions says.
    pub advertised_min: i16,
    pub min: i16,
    pub max: i16,
}

const fn served(key: ApiKey, min: i16, max: i16) -> Served {
    Served { key, advertised_min: min, min, max }
}

/// In order of API key, as clients print it.
pub const SERVED: &[Served] = &[
    // Older librdkafka silently gives up compression when Produce 0 is not on offer; it never sends it.
    Served { key: ApiKey::Produce, advertised_min: 0, min: 3, max: 13 },
    served(ApiKey::Fetch, 4, 18),
    served(ApiKey::ListOffsets, 1, 10),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::DescribeCluster, 0, 2),
];

/// Whether requests of this key and version are served.
pub fn is_served(key: ApiKey, version: i16) -> bool {
    SERVED.iter().any(|api| api.key as i16 == key as i16 && (api.min..=api.max).contains(&version))
}

/// A finalized cluster feature.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    pub name: &'static str,
    pub min: i16,
    pub max: i16,
    pub finalized: i16,
}

/// What clients act upon; Kafka 4.1's `metadata.version`.
pub const FEATURES: &[Feature] = &[Feature { name: "metadata.version", min: 7, max: 27, finalized: 27 }];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_advertised_is_what_the_codec_knows() {
        for api in SERVED {
            let codec = api.key.valid_versions();
            assert!(codec.min <= api.min && api.max <= codec.max, "{api:?} but the codec has {codec}");
        }
    }

    #[test]
    fn the_table_is_in_order_of_key_and_without_doubles() {
        assert!(SERVED.windows(2).all(|pair| (pair[0].key as i16) < (pair[1].key as i16)));
    }

    #[test]
    fn produce_before_3_is_advertised_and_refused() {
        assert_eq!(SERVED[0].advertised_min, 0);
        for version in 0..3 {
            assert!(!is_served(ApiKey::Produce, version));
        }
        assert!(is_served(ApiKey::Produce, 3) && is_served(ApiKey::Produce, 13));
        assert!(!is_served(ApiKey::Produce, 14) && !is_served(ApiKey::Produce, -1));
    }
}
