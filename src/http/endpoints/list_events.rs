use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::http::{
    ApiError, ApiState, EventList, EventView, Problem, events, extract::PathJob, query, query::EventsQuery,
    view::ListObject,
};

const LAST_EVENT_ID: &str = "last-event-id";

/// Lists what happened to a job, or streams it.
///
/// Events are numbered 1, 2, 3, … without a gap or a duplicate, whatever restarts meanwhile. With
/// `Accept: text/event-stream` they come as Server-Sent Events until the job has ended; a client that reconnects sends
/// the last number as `Last-Event-ID`, and is answered with 204 once there is nothing more to come.
#[utoipa::path(
    get, path = "/v1/jobs/{id}/events", operation_id = "list_events", tag = "jobs",
    params(
        ("id" = String, Path, description = "The job's id"),
        ("after" = Option<u64>, Query, description = "Only events with higher numbers. Default: 0", example = 0),
        ("limit" = Option<u32>, Query, description = "Events in a page. Default: 100", minimum = 1, maximum = 100, example = 100),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, in a stream", example = 3),
    ),
    responses(
        (status = 200, description = "One page, or a stream", content(
            (EventList = "application/json"),
            (String = "text/event-stream", example = json!("id: 1\nevent: job.queued\ndata: {\"object\":\"job.event\",\"seq\":1,\"type\":\"job.queued\",\"created_at\":1789000000,\"data\":{}}\n\n")),
        )),
        (status = 204, description = "The stream has ended: the job is over and the client knows"),
        (status = 400, description = "`invalid_query` or `invalid_last_event_id`", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "`job_not_found`", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`store_unavailable`", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(in crate::http) async fn list_events(
    State(state): State<ApiState>,
    PathJob(job): PathJob,
    EventsQuery { after, limit }: EventsQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = last_event_id(&headers)?;
    if !wants_stream(&headers) {
        let mut found = state.store.events(job.id, after.unwrap_or(0), limit + 1).await?;
        let has_more = found.len() > limit as usize;
        found.truncate(limit as usize);
        let data = found.into_iter().map(EventView::from).collect();
        return Ok(Json(EventList { object: ListObject::List, data, has_more }).into_response());
    }
    let after = last.or(after).unwrap_or(0);
    if job.status.is_terminal() && state.store.events(job.id, after, 1).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(events::stream(state, job.id, after).into_response())
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        kind.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| query::number(text).ok());
    number.map(Some).ok_or(ApiError::InvalidLastEventId)
}
