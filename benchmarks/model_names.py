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
