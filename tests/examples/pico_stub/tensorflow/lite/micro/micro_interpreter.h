// The part of Lite Micro's interface that programs use, with an interpreter that returns its input.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/schema/schema_generated.h"

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
enum TfLiteType { kTfLiteFloat32 = 1, kTfLiteInt32 = 2, kTfLiteInt16 = 7, kTfLiteInt8 = 9 };

struct TfLiteIntArray {
  int size;
  int data[4];
};

struct TfLiteTensor {
  TfLiteType type;
  union {
    float* f;
    std::int8_t* int8;
    std::int16_t* i16;
    std::int32_t* i32;
  } data;
  TfLiteIntArray* dims;
  struct {
    float scale;
    std::int32_t zero_point;
  } params;
};

namespace tflite {

class MicroInterpreter {
 public:
  template <typename Resolver>
  MicroInterpreter(const Model* model, const Resolver& resolver, std::uint8_t* arena,
                   std::size_t bytes)
      : valid_(model != nullptr && resolver.count() == resolver.capacity() && arena != nullptr &&
               bytes > sizeof(values_)) {
    tensor_.type = kTfLiteInt16;
    tensor_.data.i16 = values_;
    tensor_.dims = &dims_;
    tensor_.params.scale = 0.5f;
    tensor_.params.zero_point = 0;
  }
  TfLiteStatus AllocateTensors() { return valid_ ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  std::size_t inputs_size() const { return 1; }
  std::size_t outputs_size() const { return 1; }
  TfLiteTensor* input(std::size_t) { return &tensor_; }
  TfLiteTensor* output(std::size_t) { return &tensor_; }

 private:
  bool valid_;
  std::int16_t values_[3] = {};
  TfLiteIntArray dims_ = {2, {1, 3, 0, 0}};
  TfLiteTensor tensor_;
};

}  // namespace tflite
