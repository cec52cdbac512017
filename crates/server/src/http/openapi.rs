//! The OpenAPI document, from the table of routes and the types of the bodies.

use pellucid_client::api::{self, Gap, Job, Log, Problem, QueuePlace, RunProgress, Saved, Started, Token};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::routes::{Content, ROUTES, Route, VERSION};

/// The OpenAPI 3.1 document of the service.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method] = operation(route, &problem, &mut generator);
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pellucid",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Experiments on neural networks' inner values: submitted as data, checked, priced, queued, run.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": "A key: `pellucid_…`." } },
        },
    })
}

fn operation(route: &Route, problem: &Schema, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    if route.path.contains('{') {
        let description = if route.path.contains("models") { "The model's id." } else { "The job's id." };
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "description": description, "schema": { "type": "string" },
        }));
    }
    if let Some(query) = route.query {
        parameters.extend(query_parameters(query, generator));
    }
    let version = route.path.starts_with("/v1/").then_some(&VERSION);
    for (name, description) in route.headers.iter().chain(version) {
        parameters.push(json!({
            "name": name, "in": "header", "description": description, "schema": { "type": "string" },
        }));
    }
    let mut responses = Map::new();
    for (status, content) in route.gives {
        let description = match (*status, content) {
            (304, _) => "What is there already is still right.",
            (_, Content::Nothing) => "Done.",
            _ => "What was asked for.",
        };
        let mut response = json!({ "description": description });
        let headers = answered(route, *status, content);
        if !headers.is_empty() {
            response["headers"] = described_headers(&headers);
        }
        if let Some(content) = described(content, generator) {
            response["content"] = content;
        }
        responses.insert(status.to_string(), response);
    }
    responses.insert(
        "default".into(),
        json!({
            "description": "What went wrong.",
            "headers": described_headers(&[RETRY]),
            "content": { (api::PROBLEM_JSON): { "schema": problem } },
        }),
    );
    let security = if route.scope == "none" { json!([]) } else { json!([{ "key": [] }]) };
    let words: Vec<&str> = route
        .path
        .split(['/', '{', '}', '*', '.'])
        .filter(|word| !word.is_empty() && *word != "v1")
        .collect();
    let mut operation = json!({
        "operationId": format!("{}_{}", route.method, if words.is_empty() { "status_page".into() } else { words.join("_") }),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
        "security": security,
    });
    if !matches!(route.scope, "none" | "any") {
        operation["x-scope"] = json!(route.scope);
    }
    if let Some(content) = described(&route.takes, generator) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn described(content: &Content, generator: &mut SchemaGenerator) -> Option<Value> {
    let binary = || json!({ "schema": { "type": "string", "format": "binary" } });
    Some(match content {
        Content::Nothing => return None,
        Content::Program => json!({
            (api::JSON): { "schema": { "type": "object", "description": "A program: its schema is at /v1/program.schema.json." } },
            (api::SAFETENSORS): binary(),
        }),
        Content::Result => json!({ (api::SAFETENSORS): binary() }),
        Content::JobOrResult => json!({
            (api::JSON): { "schema": generator.subschema_for::<Job>() },
            (api::SAFETENSORS): binary(),
        }),
        Content::Events => {
            json!({ (api::EVENT_STREAM): { "schema": { "type": "string" }, "x-events": events(generator) } })
        }
        Content::Html => json!({ "text/html": { "schema": { "type": "string" } } }),
        Content::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Content::Json(schema) => json!({ (api::JSON): { "schema": schema(generator) } }),
        Content::AnyJson => json!({ (api::JSON): { "schema": { "type": "object" } } }),
    })
}

const LOCATION: (&str, &str) = ("Location", "The job's path.");
const JOB: (&str, &str) = ("Pellucid-Job", "The job's id.");
const REPLAYED: (&str, &str) =
    ("Idempotency-Replayed", "`true`: the job was taken before, under the same idempotency key.");
const APPLIED: (&str, &str) = ("Preference-Applied", "How long the answer was waited for, at most.");
const ETAG: (&str, &str) = ("ETag", "By it what is there already is known again.");
const CONTENT_RANGE: (&str, &str) = ("Content-Range", "Which bytes of how many.");
const RETRY: (&str, &str) = ("Retry-After", "Seconds until it is worth trying again, where it ever is.");

/// Headers of an answer that mean something.
fn answered(route: &Route, status: u16, content: &Content) -> Vec<(&'static str, &'static str)> {
    let mut headers = Vec::new();
    if route.takes_job() {
        headers.extend([LOCATION, JOB, REPLAYED, APPLIED]);
    }
    if status == 304 || matches!(content, Content::Result) || route.path.starts_with("/v1/models/") {
        headers.push(ETAG);
    }
    if status == 206 {
        headers.push(CONTENT_RANGE);
    }
    headers
}

fn described_headers(headers: &[(&str, &str)]) -> Value {
    let described = headers.iter().map(|(name, description)| {
        ((*name).to_owned(), json!({ "description": description, "schema": { "type": "string" } }))
    });
    Value::Object(described.collect())
}

/// What stands in the `data` of each event, by its name.
fn events(generator: &mut SchemaGenerator) -> Value {
    json!({
        "queued": generator.subschema_for::<QueuePlace>(),
        "running": generator.subschema_for::<Started>(),
        "progress": generator.subschema_for::<RunProgress>(),
        "log": generator.subschema_for::<Log>(),
        "token": generator.subschema_for::<Token>(),
        "value": generator.subschema_for::<Saved>(),
        "gap": generator.subschema_for::<Gap>(),
        "done": generator.subschema_for::<Job>(),
    })
}

/// Each property of a query's type is a parameter.
fn query_parameters(
    query: fn(&mut SchemaGenerator) -> Schema,
    generator: &mut SchemaGenerator,
) -> Vec<Value> {
    let reference = query(generator).to_value();
    let name =
        reference["$ref"].as_str().and_then(|text| text.rsplit('/').next()).unwrap_or_default().to_owned();
    let definition = generator.definitions().get(&name).cloned().unwrap_or_default();
    let properties = definition["properties"].as_object().cloned().unwrap_or_default();
    let parameter = |(name, mut schema): (String, Value)| {
        let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        json!({ "name": name, "in": "query", "description": description.unwrap_or_default(), "schema": schema })
    };
    properties.into_iter().map(parameter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        found.push(reference.clone());
                    }
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_every_query_its_parameters() {
        let document = document();
        let operations = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values());
        let mut ids: Vec<&str> =
            operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), ROUTES.len());
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ROUTES.len());
        let submit = &document["paths"]["/v1/jobs"]["post"]["parameters"];
        let names: Vec<&str> =
            submit.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        for name in ["model", "priority", "deadline_s", "label", "Idempotency-Key", "Pellucid-Version"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        let result = &document["paths"]["/v1/jobs/{id}/result"]["get"]["responses"];
        assert!(result["206"]["headers"]["Content-Range"].is_object() && result["304"]["content"].is_null());
    }
}
