// Runs the model of model.h on a Raspberry Pi Pico: numbers in, numbers out, over the USB serial port.
//
// A sample is a list of numbers in row-major order (step by step), separated by white space. For each
// sample, one line per output is printed: its position and its numbers.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "model.h"
#include "pico/stdlib.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) std::uint8_t arena[edgeattn_model::kArenaBytes];

std::size_t Count(const TfLiteTensor* tensor) {
  std::size_t count = 1;
  for (int k = 0; k < tensor->dims->size; ++k) count *= tensor->dims->data[k];
  return count;
}

// The integer of a real number, rounded and limited to the range of its type.
long Quantize(const TfLiteTensor* tensor, float value, long low, long high) {
  const long integer = std::lround(value / tensor->params.scale) + tensor->params.zero_point;
  return integer < low ? low : integer > high ? high : integer;
}

float Dequantize(const TfLiteTensor* tensor, long integer) {
  return tensor->params.scale * static_cast<float>(integer - tensor->params.zero_point);
}

void Write(TfLiteTensor* tensor, std::size_t k, float value) {
  switch (tensor->type) {
    case kTfLiteInt8:
      tensor->data.int8[k] = static_cast<std::int8_t>(Quantize(tensor, value, -128, 127));
      break;
    case kTfLiteInt16:
      tensor->data.i16[k] = static_cast<std::int16_t>(Quantize(tensor, value, -32768, 32767));
      break;
    case kTfLiteInt32:  // tokens
      tensor->data.i32[k] = static_cast<std::int32_t>(value);
      break;
    default:
      tensor->data.f[k] = value;
  }
}

float Read(const TfLiteTensor* tensor, std::size_t k) {
  switch (tensor->type) {
    case kTfLiteInt8:
      return Dequantize(tensor, tensor->data.int8[k]);
    case kTfLiteInt16:
      return Dequantize(tensor, tensor->data.i16[k]);
    case kTfLiteInt32:
      return static_cast<float>(tensor->data.i32[k]);
    default:
      return tensor->data.f[k];
  }
}

// Returns false if the input ends, which it does only on a computer.
bool ReadSample(tflite::MicroInterpreter& interpreter) {
  for (std::size_t i = 0; i < interpreter.inputs_size(); ++i) {
    TfLiteTensor* tensor = interpreter.input(i);
    for (std::size_t k = 0; k < Count(tensor); ++k) {
      float value = 0;
      if (std::scanf("%f", &value) != 1) return false;
      Write(tensor, k, value);
    }
  }
  return true;
}

void WriteOutputs(tflite::MicroInterpreter& interpreter) {
  for (std::size_t i = 0; i < interpreter.outputs_size(); ++i) {
    const TfLiteTensor* tensor = interpreter.output(i);
    std::printf("%u", static_cast<unsigned>(i));
    for (std::size_t k = 0; k < Count(tensor); ++k) std::printf(" %.6g", Read(tensor, k));
    std::printf("\n");
  }
}

}  // namespace

int main() {
  stdio_init_all();
  static tflite::MicroMutableOpResolver<edgeattn_model::kOperatorCount> resolver;
  if (!edgeattn_model::AddOperators(resolver)) {
    std::printf("the library lacks an operator of the model\n");
    return 1;
  }
  static tflite::MicroInterpreter interpreter(tflite::GetModel(edgeattn_model::kModel), resolver, arena,
                                              sizeof(arena));
  if (interpreter.AllocateTensors() != kTfLiteOk) {
    std::printf("the arena is too small\n");
    return 1;
  }
  while (ReadSample(interpreter)) {
    if (interpreter.Invoke() != kTfLiteOk) {
      std::printf("the inference failed\n");
      return 1;
    }
    WriteOutputs(interpreter);
  }
}
