#pragma once
// Scratch floats of the drafters.

#include "models/float_buffer.h"
