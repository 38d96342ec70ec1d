package lua

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What no script uses is left out of all, so that nothing else says that it is dead.
func TestSharedFunctionsAreUsed(t *testing.T) {
	shared, err := files.ReadDir("shared")
	require.NoError(t, err)
	for _, part := range shared {
		for _, f := range regexp.MustCompile(`(?m)^local function (\w+)`).FindAllStringSubmatch(read("shared/"+part.Name()), -1) {
			require.True(t, slices.ContainsFunc(scripts, func(s *script) bool {
				return strings.Contains(s.text, "local function "+f[1]+"(")
			}), "%s: no script uses %s", part.Name(), f[1])
		}
	}
}

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
  return deep(a) .. 'end' .. a
end

local function alone()
  return alone() + by_alone()
end
local function by_alone() -- used_in_comment
  if one then
    return 'x'
  end -- of if
end
return used(one)
`
	require.Equal(t, `local one = 1
local never, two = 1, 2
local called = deep(1)
local function deep(a)
  return a
end
local function used(a)
  return deep(a) .. 'end' .. a
end

return used(one)
`, slim(text))
}

// What is called at one place under a condition is made there, with what only it uses, in its order; but not in
// a loop, which would make it again and again.
func TestRareFunctionsAreMadeWhereTheyAreCalled(t *testing.T) {
	require.Equal(t, `local both = {}
local function shared()
end
local function looped(a)
  return a
end
if both[1] then
  for i = 1, 2 do
    if not both[i] then
local function make_judge()
local CAP = 2
local function deep()
  return CAP
end
local function rare()
  return deep() + #both
end
  return rare() + shared()
end
      judge = make_judge()
    end
    local a = looped(i)
  end
elseif shared() then
local function once()
end
  once()
end
return shared()
`, slim(`local CAP = 2
local both = {}
local function deep()
  return CAP
end
local function shared()
end
local function rare()
  return deep() + #both
end
local function make_judge()
  return rare() + shared()
end
local function looped(a)
  return a
end
local function once()
end
if both[1] then
  for i = 1, 2 do
    if not both[i] then
      judge = make_judge()
    end
    local a = looped(i)
  end
elseif shared() then
  once() -- not once
end
return shared()
`))
}
