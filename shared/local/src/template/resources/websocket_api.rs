//! `AWS::Serverless::WebSocketApi` and `AWS::ApiGatewayV2::RouteResponse`.

use std::collections::BTreeMap;

use super::super::error::TemplateError;
use super::super::resolver::Resource;
use super::super::{kinds, physical};
use super::Reader;
use crate::spec::{RouteSpec, WebSocketApiSpec};

const READ: &[&str] = &["RouteSelectionExpression", "Routes", "StageName"];
const HARMLESS: &[&str] = &[
    "AccessLogSettings",
    "DefaultRouteSettings",
    "Description",
    "IpAddressType",
    "Name",
    "PropagateTags",
    "RouteSettings",
    "Tags",
];

/// Reads one API. Routes are one-way until [`attach_route_responses`] has seen their route responses.
pub(super) fn read(reader: &mut Reader<'_>, logical_id: &str) -> Result<(), TemplateError> {
    let kind = kinds::WEBSOCKET_API;
    let properties = reader.properties(logical_id, kind, READ, HARMLESS)?;
    let expression = properties.required_string("RouteSelectionExpression")?;
    let stage = properties.string("StageName")?.unwrap_or_else(|| "default".to_owned());
    if stage == "$default" {
        return Err(properties.fault("StageName", "a WebSocket API cannot have the stage $default"));
    }
    let routes = properties.object("Routes")?.filter(|routes| !routes.values().is_empty());
    let routes = routes.ok_or_else(|| properties.fault("Routes", "is missing: an API has at least one route"))?;
    let mut targets = BTreeMap::new();
    for key in routes.values().keys() {
        let special = matches!(key.as_str(), "$connect" | "$disconnect" | "$default");
        if !special && (key.is_empty() || !key.chars().all(char::is_alphanumeric)) {
            return Err(routes.fault(key, "a route key has only letters and digits, or is $connect, $disconnect or $default"));
        }
        let route = routes.object(key)?.ok_or_else(|| routes.fault(key, "must be a map with a FunctionArn"))?;
        reader.name_others(
            &format!("{logical_id}.{key}"),
            kind,
            &route,
            &["FunctionArn", "RouteResponseSelectionExpression", "OperationName"],
        );
        let function = reader.function(&route, "FunctionArn")?;
        targets.insert(key.clone(), RouteSpec { function, two_way: false });
    }
    reader.template.websocket_apis.push(WebSocketApiSpec {
        logical_id: logical_id.to_owned(),
        api_id: physical::reference(reader.resolver, logical_id)?,
        stage,
        route_selection_expression: expression,
        routes: targets,
    });
    Ok(())
}

/// A route answers its client where it has `RouteResponseSelectionExpression: $default` and a route response `$default`.
pub(super) fn attach_route_responses(reader: &mut Reader<'_>, resources: &[Resource<'_>]) -> Result<(), TemplateError> {
    for Resource { logical_id, kind, .. } in resources.iter().filter(|resource| resource.kind == kinds::ROUTE_RESPONSE) {
        let properties = reader.properties(logical_id, kind, &["ApiId", "RouteId", "RouteResponseKey"], &["ResponseModels"])?;
        let api_id = properties.required_string("ApiId")?;
        let route_id = properties.required_string("RouteId")?;
        if properties.required_string("RouteResponseKey")? != "$default" {
            return Err(properties.fault("RouteResponseKey", "must be $default, the only one that API Gateway takes"));
        }
        let identity = reader.resolver.identity;
        let api = reader.template.websocket_apis.iter_mut().find(|api| api.api_id == api_id);
        let api = api.ok_or_else(|| properties.fault("ApiId", format!("{api_id} is no AWS::Serverless::WebSocketApi here")))?;
        let key = api.routes.keys().find(|key| physical::route_id(identity, &api.logical_id, key) == route_id).cloned();
        let key = key.ok_or_else(|| {
            let fault = format!("must be !Ref {}<Route>Route of a route of the API, such as {0}DefaultRoute", api.logical_id);
            properties.fault("RouteId", fault)
        })?;
        let place = format!("Routes.{key}.RouteResponseSelectionExpression");
        let routes = reader.resolver.properties(&api.logical_id, &["Routes"])?.object("Routes")?;
        let selection = routes.and_then(|routes| routes.object(&key).ok().flatten());
        match selection.map(|route| route.string("RouteResponseSelectionExpression")).transpose()?.flatten().as_deref() {
            Some("$default") => {
                api.routes.get_mut(&key).expect("the key is one of the routes").two_way = true;
            }
            Some(other) => {
                let fault = format!("must be $default, and {other} is not");
                return Err(TemplateError::at(format!("Resources.{}.Properties.{place}", api.logical_id), fault));
            }
            None => {
                let meaning = format!(
                    "the route {key} has no RouteResponseSelectionExpression, so its answers are dropped, here as on AWS"
                );
                reader.leave_out(logical_id, kind, meaning, true);
            }
        }
    }
    Ok(())
}
