"""Provider dialects: bytes -> CallIntent, response or stream -> Usage, vendor-shaped error bodies. No I/O."""
