"""How the media types of graspd that Schemathesis does not know are sent."""

import schemathesis


@schemathesis.serializer("application/jsonl")
def lines(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
