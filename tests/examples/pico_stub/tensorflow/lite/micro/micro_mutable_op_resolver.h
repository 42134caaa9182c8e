// Counts the operators that a program adds.
#pragma once

#include "tensorflow/lite/micro/micro_interpreter.h"

namespace tflite {

template <unsigned kCount>
class MicroMutableOpResolver {
 public:
  unsigned count() const { return count_; }
  unsigned capacity() const { return kCount; }

#define METHOD(name) \
  TfLiteStatus Add##name() { return count_++ < kCount ? kTfLiteOk : kTfLiteError; }
  METHOD(Abs) METHOD(Add) METHOD(AddN) METHOD(ArgMax) METHOD(ArgMin) METHOD(AssignVariable)
  METHOD(AveragePool2D) METHOD(BatchMatMul) METHOD(BatchToSpaceNd) METHOD(BroadcastArgs)
  METHOD(BroadcastTo) METHOD(CallOnce) METHOD(Cast) METHOD(Ceil) METHOD(Concatenation)
  METHOD(Conv2D) METHOD(Cos) METHOD(CumSum) METHOD(DepthToSpace) METHOD(DepthwiseConv2D)
  METHOD(Dequantize) METHOD(Div) METHOD(DynamicUpdateSlice) METHOD(Elu) METHOD(EmbeddingLookup)
  METHOD(Equal) METHOD(Exp) METHOD(ExpandDims) METHOD(Fill) METHOD(Floor) METHOD(FloorDiv)
  METHOD(FloorMod) METHOD(FullyConnected) METHOD(Gather) METHOD(GatherNd) METHOD(Greater)
  METHOD(GreaterEqual) METHOD(HardSwish) METHOD(If) METHOD(L2Normalization) METHOD(L2Pool2D)
  METHOD(LeakyRelu) METHOD(Less) METHOD(LessEqual) METHOD(Log) METHOD(LogSoftmax)
  METHOD(LogicalAnd) METHOD(LogicalNot) METHOD(LogicalOr) METHOD(Logistic) METHOD(MaxPool2D)
  METHOD(Maximum) METHOD(Mean) METHOD(Minimum) METHOD(MirrorPad) METHOD(Mul) METHOD(Neg)
  METHOD(NotEqual) METHOD(Pack) METHOD(Pad) METHOD(PadV2) METHOD(Prelu) METHOD(Quantize)
  METHOD(ReadVariable) METHOD(ReduceAll) METHOD(ReduceMax) METHOD(ReduceMin) METHOD(Relu)
  METHOD(Relu6) METHOD(Reshape) METHOD(ResizeBilinear) METHOD(ResizeNearestNeighbor)
  METHOD(ReverseV2) METHOD(Round) METHOD(Rsqrt) METHOD(SelectV2) METHOD(Shape) METHOD(Sin)
  METHOD(Slice) METHOD(Softmax) METHOD(SpaceToBatchNd) METHOD(SpaceToDepth) METHOD(Split)
  METHOD(SplitV) METHOD(Sqrt) METHOD(Square) METHOD(SquaredDifference) METHOD(Squeeze)
  METHOD(StridedSlice) METHOD(Sub) METHOD(Sum) METHOD(Svdf) METHOD(Tanh) METHOD(Transpose)
  METHOD(TransposeConv) METHOD(UnidirectionalSequenceLSTM) METHOD(Unpack) METHOD(VarHandle)
  METHOD(While) METHOD(ZerosLike)
#undef METHOD

 private:
  unsigned count_ = 0;
};

}  // namespace tflite
