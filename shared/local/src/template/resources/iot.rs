//! IoT Core: `AWS::IoT::TopicRule`, `AWS::IoT::Authorizer` and the SAM event `IoTRule`.

use super::super::error::TemplateError;
use super::super::object::Object;
use super::super::{kinds, physical};
use super::Reader;
use crate::iot::sql::Statement;
use crate::spec::{AuthorizerSpec, TopicRuleSpec};

/// The versions of the SQL engine. What is evaluated here means the same in each of them.
const SQL_VERSIONS: [&str; 3] = ["2015-10-08", "2016-03-23", "beta"];

/// A rule that is a resource of its own.
pub(super) fn read_rule(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let kind = kinds::TOPIC_RULE;
    let properties = reader.properties(logical_id, kind, &["RuleName", "TopicRulePayload"], &["Tags"])?;
    let payload = properties.object("TopicRulePayload")?;
    let payload = payload.ok_or_else(|| properties.fault("TopicRulePayload", "is missing"))?;
    let known = ["Actions", "AwsIotSqlVersion", "Description", "ErrorAction", "RuleDisabled", "Sql"];
    reader.name_others(logical_id, kind, &payload, &known);
    if payload.boolean("RuleDisabled")? == Some(true) {
        reader.leave_out(logical_id, kind, "is disabled in the template, so it does nothing", true);
        return Ok(());
    }
    let statement = statement(&payload)?;
    if payload.get("ErrorAction").is_some() {
        let meaning = "ErrorAction is not emulated: what a rule cannot hand over is named in the log";
        reader.leave_out(&format!("{logical_id}.ErrorAction"), kind, meaning, false);
    }
    let name = physical::reference(reader.resolver, logical_id)?;
    for action in payload.objects("Actions")? {
        for other in action.values().keys().filter(|other| *other != "Lambda") {
            let meaning = format!("the action {other} is not emulated: only Lambda is");
            reader.leave_out(&format!("{logical_id}.{other}"), kind, meaning, false);
        }
        let Some(lambda) = action.object("Lambda")? else { continue };
        let arn = lambda.required_string("FunctionArn")?;
        let Some(function) = physical::function_by_name(reader.resolver, &arn)? else {
            let meaning = format!("the target {arn} is no function of this template and receives nothing");
            reader.leave_out(&format!("{logical_id}.Lambda"), kind, meaning, false);
            continue;
        };
        let rule =
            TopicRuleSpec { logical_id: logical_id.to_owned(), name: name.clone(), statement: statement.clone(), function };
        reader.template.topic_rules.push(rule);
    }
    Ok(())
}

/// A rule that SAM makes of a function's event.
pub(super) fn read_event(reader: &mut Reader<'_>, id: &str, function: &str, properties: &Object) -> Result<(), TemplateError> {
    reader.name_others(id, "IoTRule", properties, &["Sql", "AwsIotSqlVersion"]);
    let logical_id = id.replace('.', "");
    let rule = TopicRuleSpec {
        name: physical::generated_topic_rule_name(reader.resolver.identity, &logical_id),
        logical_id,
        statement: statement(properties)?,
        function: function.to_owned(),
    };
    reader.template.topic_rules.push(rule);
    Ok(())
}

/// A custom authorizer.
pub(super) fn read_authorizer(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let kind = kinds::AUTHORIZER;
    let read = &["AuthorizerFunctionArn", "AuthorizerName", "SigningDisabled", "Status", "TokenKeyName"];
    // Answers are not cached here, and keys are of no use without the check that is named below.
    let harmless = &["EnableCachingForHttp", "Tags", "TokenSigningPublicKeys"];
    let properties = reader.properties(logical_id, kind, read, harmless)?;
    match properties.string("Status")?.as_deref() {
        None | Some("ACTIVE") => {}
        Some("INACTIVE") => {
            reader.leave_out(logical_id, kind, "is INACTIVE in the template, so it lets nobody in", true);
            return Ok(());
        }
        Some(other) => return Err(properties.fault("Status", format!("must be ACTIVE or INACTIVE, and {other} is neither"))),
    }
    if properties.boolean("SigningDisabled")? != Some(true) {
        let meaning = "the signatures of tokens are not verified here: the function is asked whatever the client shows";
        reader.leave_out(&format!("{logical_id}.SigningDisabled"), kind, meaning, false);
    }
    let authorizer = AuthorizerSpec {
        logical_id: logical_id.to_owned(),
        name: physical::reference(reader.resolver, logical_id)?,
        function: reader.function(&properties, "AuthorizerFunctionArn")?,
        token_key: properties.string("TokenKeyName")?,
    };
    reader.template.authorizers.push(authorizer);
    Ok(())
}

fn statement(properties: &Object) -> Result<Statement, TemplateError> {
    if let Some(version) = properties.string("AwsIotSqlVersion")?.filter(|version| !SQL_VERSIONS.contains(&version.as_str())) {
        let versions = SQL_VERSIONS.join(", ");
        return Err(properties.fault("AwsIotSqlVersion", format!("must be one of {versions}, and {version} is none")));
    }
    let sql = properties.required_string("Sql")?;
    Statement::parse(&sql).map_err(|error| properties.fault("Sql", error.to_string()))
}
