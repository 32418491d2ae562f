//! The description of the API, put together from what stands beside each handler.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, ContentBuilder, Ref, RefOr, ResponseBuilder, Schema,
        path::{Operation, PathItem},
        schema::{SchemaType, Type},
        security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

use super::endpoints::{
    cancel_job, create_dataset, create_evaluation, create_job, create_plan, delete_dataset, delete_job, get_archive,
    get_artifact, get_capabilities, get_dataset, get_job, get_livez, get_logs, get_metrics, get_openapi,
    get_publication, get_readyz, get_report, get_version, list_artifacts, list_datasets, list_events, list_jobs,
    pause_job, publish_job, resume_job,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "graspd",
        description = "Makes large language models smaller with GRASP (arXiv 2501.00339).\n\nEvery error is an RFC 9457 problem document with a stable `code`. Every reply carries `X-Request-Id`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/")),
    modifiers(&Gated, &NeverNull),
    tags(
        (name = "jobs", description = "Submit, watch, pause, cancel and delete"),
        (name = "datasets", description = "Your own texts"),
        (name = "artifacts", description = "Fetch what a job has published"),
        (name = "service", description = "For operators"),
    ),
    paths(
        create_job::create_job,
        list_jobs::list_jobs,
        get_job::get_job,
        list_events::list_events,
        get_logs::get_logs,
        cancel_job::cancel_job,
        pause_job::pause_job,
        resume_job::resume_job,
        delete_job::delete_job,
        get_report::get_report,
        list_artifacts::list_artifacts,
        get_artifact::get_artifact,
        get_archive::get_archive,
        create_evaluation::create_evaluation,
        create_plan::create_plan,
        create_dataset::create_dataset,
        list_datasets::list_datasets,
        get_dataset::get_dataset,
        delete_dataset::delete_dataset,
        get_capabilities::get_capabilities,
        publish_job::publish_job,
        get_publication::get_publication,
        get_livez::get_livez,
        get_readyz::get_readyz,
        get_metrics::get_metrics,
        get_openapi::get_openapi,
        get_version::get_version,
    ),
)]
struct ApiDescription;

/// What the gate answers before any endpoint is asked, and the key it wants to see.
struct Gated;

const KEY: &str = "key";
/// Status, name and description of each of the gate's replies.
const ANSWERS: [(&str, &str, &str); 4] = [
    ("401", "Unauthorized", "`key_needed` or `invalid_key`"),
    ("403", "Forbidden", "`scope_needed` or `foreign_site`"),
    ("429", "TooManyRequests", "`rate_limited`: try again after `Retry-After` seconds"),
    ("500", "InternalServerError", "`internal`: the log has the details, by `X-Request-Id`"),
];

impl Modify for Gated {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Components::new);
        components.add_security_scheme(KEY, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        for (_, name, description) in ANSWERS {
            let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            let response = ResponseBuilder::new().description(description).content("application/problem+json", problem);
            components.responses.insert(name.to_owned(), RefOr::T(response.build()));
        }
        for (path, item) in &mut openapi.paths.paths {
            if path.starts_with("/v1/") || path == "/metrics" {
                operations(item).for_each(gate);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

fn gate(operation: &mut Operation) {
    // A service without keys wants none.
    let open = SecurityRequirement::default();
    operation.security = Some(vec![open, SecurityRequirement::new(KEY, Vec::<String>::new())]);
    for (status, name, _) in ANSWERS {
        let answer = RefOr::Ref(Ref::from_response_name(name));
        operation.responses.responses.entry(status.to_owned()).or_insert(answer);
    }
}

/// A parameter may be absent, but never null, which neither a query nor a header can be.
struct NeverNull;

impl Modify for NeverNull {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let operations = openapi.paths.paths.values_mut().flat_map(operations);
        for parameter in operations.filter_map(|operation| operation.parameters.as_mut()).flatten() {
            if let RefOr::T(parameter) = parameter
                && let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema
                && let SchemaType::Array(types) = &object.schema_type
                && let [only] = types.iter().filter(|kind| **kind != Type::Null).collect::<Vec<_>>()[..]
            {
                object.schema_type = SchemaType::Type(only.clone());
            }
        }
    }
}

/// The description of the API, for those who look into it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    ApiDescription::openapi()
}

/// The description of the API as OpenAPI 3.1 in YAML, byte for byte the committed `openapi.yaml`.
///
/// # Panics
/// Never: the document is plain data, and a test writes it out.
#[expect(clippy::expect_used, reason = "the document is a constant of the build")]
pub fn openapi_yaml() -> String {
    openapi().to_yaml().expect("the description is plain data")
}
