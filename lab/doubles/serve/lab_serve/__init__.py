"""What the engine doubles share apart from the GPU: a small HTTP server, a stand-in tokenizer, vectors. Standard library only."""
