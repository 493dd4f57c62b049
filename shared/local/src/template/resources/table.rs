//! `AWS::DynamoDB::Table` and `AWS::Serverless::SimpleTable`.

use serde_json::{Map, Value, json};

use super::super::error::TemplateError;
use super::super::object::Object;
use super::super::{kinds, physical};
use super::Reader;
use crate::spec::TableSpec;

/// Properties of the resource that CreateTable takes under the same name.
const CREATE: &[&str] = &[
    "AttributeDefinitions",
    "BillingMode",
    "GlobalSecondaryIndexes",
    "KeySchema",
    "LocalSecondaryIndexes",
    "ProvisionedThroughput",
    "TableClass",
];
const HARMLESS: &[&str] = &[
    "ContributorInsightsSpecification",
    "DeletionProtectionEnabled",
    "OnDemandThroughput",
    "PointInTimeRecoverySpecification",
    "ResourcePolicy",
    "SSESpecification",
    "Tags",
    "WarmThroughput",
];

/// Reads one table.
pub(super) fn read(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let mut known = vec!["TableName", "TimeToLiveSpecification", "StreamSpecification"];
    known.extend(CREATE);
    let properties = reader.properties(logical_id, kinds::TABLE, &known, HARMLESS)?;
    for required in ["KeySchema", "AttributeDefinitions"] {
        if properties.objects(required)?.is_empty() {
            return Err(properties.fault(required, "is missing"));
        }
    }
    let name = physical::name(reader.resolver, logical_id, "TableName")?;
    let mut create = Map::from_iter([("TableName".to_owned(), Value::String(name.clone()))]);
    for property in CREATE {
        if let Some(value) = properties.get(property) {
            create.insert((*property).to_owned(), plain(value));
        }
    }
    if let Some(stream) = properties.object("StreamSpecification")? {
        let view = stream.required_string("StreamViewType")?;
        create.insert("StreamSpecification".to_owned(), json!({"StreamEnabled": true, "StreamViewType": view}));
    }
    let ttl = properties.object("TimeToLiveSpecification")?;
    let ttl_attribute = match ttl {
        Some(ttl) if ttl.boolean("Enabled")?.unwrap_or(false) => Some(ttl.required_string("AttributeName")?),
        _ => None,
    };
    push(reader, logical_id, name, create, ttl_attribute);
    Ok(())
}

/// Reads SAM's short form: one key, `id` of type String where nothing is said.
pub(super) fn read_simple(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let read = &["TableName", "PrimaryKey", "ProvisionedThroughput"];
    let properties = reader.properties(logical_id, kinds::SIMPLE_TABLE, read, HARMLESS)?;
    let key = match properties.object("PrimaryKey")? {
        Some(key) => key,
        None => Object::new(properties.place_of("PrimaryKey"), Map::new()),
    };
    let attribute = key.string("Name")?.unwrap_or_else(|| "id".to_owned());
    let letter = match key.string("Type")?.as_deref() {
        None | Some("String") => "S",
        Some("Number") => "N",
        Some("Binary") => "B",
        Some(other) => return Err(key.fault("Type", format!("must be String, Number or Binary, and {other} is none"))),
    };
    let name = physical::name(reader.resolver, logical_id, "TableName")?;
    let create = json!({
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": attribute, "AttributeType": letter}],
        "KeySchema": [{"AttributeName": attribute, "KeyType": "HASH"}],
    });
    let Value::Object(create) = create else { unreachable!("the literal above is a map") };
    push(reader, logical_id, name, create, None);
    Ok(())
}

fn push(reader: &mut Reader<'_>, logical_id: &str, name: String, mut create: Map<String, Value>, ttl_attribute: Option<String>) {
    // CloudFormation's default is PROVISIONED, which then has a throughput; a local table has no capacity either way.
    let provisioned = create.contains_key("ProvisionedThroughput");
    create.entry("BillingMode").or_insert_with(|| if provisioned { "PROVISIONED" } else { "PAY_PER_REQUEST" }.into());
    reader.template.tables.push(TableSpec {
        logical_id: logical_id.to_owned(),
        name,
        create: Value::Object(create),
        ttl_attribute,
    });
}

/// Index properties that CreateTable does not take are left out, and numbers that CloudFormation takes as strings become numbers.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| {
                !matches!(key.as_str(), "ContributorInsightsSpecification" | "OnDemandThroughput" | "WarmThroughput")
            });
            Value::Object(
                kept.map(|(key, value)| match (key.as_str(), value.as_str().map(str::parse::<u64>)) {
                    ("ReadCapacityUnits" | "WriteCapacityUnits", Some(Ok(number))) => (key.clone(), number.into()),
                    _ => (key.clone(), plain(value)),
                })
                .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        scalar => scalar.clone(),
    }
}
