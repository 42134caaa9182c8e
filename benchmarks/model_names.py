"""The names of the measured models, without importing Keras."""

NAMES = (
    "T10-LSTM128",
    "T50-LSTM64",
    "T128-BiLSTM64",
    "T500-Embedding-LSTM100",
    "T50-GRU64",
    "T29-masked-LSTM64",
    "T64-transformer",
    "T100-2LSTM64-heads",
)
RECURRENT = tuple(name for name in NAMES if name != "T64-transformer")
# The same in words.
WORDS = {
    "T10-LSTM128": "LSTM of 128 units, 10 steps",
    "T50-LSTM64": "LSTM of 64 units, 50 steps",
    "T128-BiLSTM64": "bidirectional LSTM of 64 units, 128 steps",
    "T500-Embedding-LSTM100": "embedding, LSTM of 100 units, 500 steps",
    "T50-GRU64": "GRU of 64 units, 50 steps",
    "T29-masked-LSTM64": "masks, LSTM of 64 units, 29 steps",
    "T64-transformer": "transformer block, 64 steps",
    "T100-2LSTM64-heads": "two LSTMs of 64 units, attention heads, 100 steps",
}
