package lua

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A script has the functions that it uses, those that these use, and no others.
func TestUnusedFunctionsAreLeftOut(t *testing.T) {
	text := `-- head used_in_comment
local one = 1 -- said
local never, two = 1, 2
local NEVER = KEYS[3]
local TEXT = 'a' -- NEVER
local TABLE = {}
local called = deep(1)
local function deep(a)
  return a
end
local function used(a)
  -- no word
  return deep(a) .. 'end'
end

local function alone()
  return alone() + by_alone()
end
local function by_alone() -- used_in_comment
  if one then
    return 'x'
  end
end
return used(one)
`
	require.Equal(t, `local one = 1 -- said
local never, two = 1, 2
local called = deep(1)
local function deep(a)
  return a
end
local function used(a)
  return deep(a) .. 'end'
end

return used(one)
`, withoutUnused(text))
	for _, s := range scripts {
		require.Equal(t, s.text, withoutUnused(s.text), s.name)
	}
}
