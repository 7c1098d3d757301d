//! Shapes of options that osbuild's modules share: objects whose order matters, and what
//! a module needs though its schema does not say so.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use osbc_module_api::*;
use schemars::SchemaGenerator;
use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};

/// An object that fits the type `T`, with its entries in the manifest's order.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    /// The entries as written.
    pub(crate) entries: Map<String, Value>,
    fits: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for InOrder<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        T::deserialize(&value).map_err(D::Error::custom)?;
        let Value::Object(entries) = value else { return Err(D::Error::custom("not an object")) };
        Ok(Self { entries, fits: PhantomData })
    }
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { entries: Map::new(), fits: PhantomData }
    }
}

impl<T: JsonSchema> JsonSchema for InOrder<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// An object of any keys, in the manifest's order; its schema is that of a map.
#[derive(Debug)]
pub(crate) struct Entries<K, V>(pub(crate) Vec<(K, V)>);

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for Entries<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Ordered<K, V> {
            type Value = Entries<K, V>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Ordered(PhantomData))
    }
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: JsonSchema + Ord, V: JsonSchema> JsonSchema for Entries<K, V> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        BTreeMap::<K, V>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> schemars::Schema {
        BTreeMap::<K, V>::json_schema(generator)
    }
}

/// An option that osbuild's schema lets be absent and its code does not.
///
/// # Errors
/// It is absent.
pub(crate) fn required<T>(option: Option<T>, name: &str) -> Result<T, Error> {
    option.ok_or_else(|| Error::failed(format!("the option `{name}` is missing")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "the entries are read in their order")]
    struct Pair {
        a: Option<i64>,
        b: Option<String>,
    }

    #[test]
    fn objects_keep_their_order_and_are_checked() {
        let pair = InOrder::<Pair>::deserialize(json!({"b": "x", "a": 1})).unwrap();
        assert_eq!(pair.entries.keys().collect::<Vec<_>>(), ["b", "a"]);
        for bad in [json!({"c": 1}), json!({"a": "1"}), json!([])] {
            assert!(InOrder::<Pair>::deserialize(bad).is_err());
        }
        assert_eq!(options_schema::<InOrder<Pair>>(), options_schema::<Pair>());
        let Entries(entries) = Entries::<String, i64>::deserialize(json!({"z": 1, "a": 2})).unwrap();
        assert_eq!(entries, [("z".to_owned(), 1), ("a".to_owned(), 2)]);
        assert_eq!(options_schema::<Entries<String, i64>>(), options_schema::<BTreeMap<String, i64>>());
    }
}
