"""What routers share: values by key, in Redis or in a folder."""
