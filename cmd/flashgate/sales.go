package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"flashgate/ledger"
	"flashgate/sale"
)

// putResult says what putSale did.
type putResult struct {
	version sale.Version
	// changed is false when the sale was so already.
	changed bool
	created bool
}

// putTries bounds how often putSale looks again because somebody else was faster, such as another
// gateway that starts with the same files.
const putTries = 5

// putSale creates a sale, or changes it when the config differs from its latest version. What a file
// gives relative to now was fixed when the sale was created, and stays.
func putSale(ctx context.Context, l ledger.Ledger, config sale.Config, actor, reason string) (r putResult, err error) {
	for range putTries {
		if r, err = putOnce(ctx, l, config, actor, reason); !errors.Is(err, ledger.ErrVersionMismatch) {
			return r, err
		}
	}
	return r, err
}

func putOnce(ctx context.Context, l ledger.Ledger, config sale.Config, actor, reason string) (putResult, error) {
	now := sale.Moment(time.Now().UnixMilli())
	latest, err := l.LatestVersion(ctx, config.Sale)
	create := errors.Is(err, ledger.ErrNotFound)
	if err != nil && !create {
		return putResult{}, fmt.Errorf("read sale %s: %w", config.Sale, err)
	}
	next := sale.Version{Sale: config.Sale, Lifecycle: sale.Live, Actor: actor, Reason: reason}
	var before *sale.Config
	if !create {
		next.Lifecycle = latest.Lifecycle
		before = &latest.Config
	}
	config.Resolve(now, before)
	if wrong := config.Validate(); len(wrong) > 0 {
		return putResult{}, fmt.Errorf("sale %s: %w", config.Sale, wrong[0])
	}
	if !create {
		if sameConfig(&latest.Config, &config) {
			return putResult{version: latest}, nil
		}
		if locked := sale.Diff(&latest.Config, &config).Locked; len(locked) > 0 && now >= latest.Config.OpensAt {
			return putResult{}, fmt.Errorf("sale %s has opened: %s cannot change any more "+
				"(stock changes through adjust)", config.Sale, strings.Join(locked, ", "))
		}
	}
	next.Config = config
	v, err := l.PutVersion(ctx, next, latest.Version)
	if err != nil {
		return putResult{}, fmt.Errorf("write sale %s: %w", config.Sale, err)
	}
	return putResult{version: v, changed: true, created: create}, nil
}

func sameConfig(a, b *sale.Config) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// setLifecycle pauses, resumes or closes a sale; false when it was so already.
func setLifecycle(
	ctx context.Context, l ledger.Ledger, id string, to sale.Lifecycle, reason string,
) (putResult, error) {
	latest, err := l.LatestVersion(ctx, id)
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return putResult{}, fmt.Errorf("there is no sale %.70q", id)
	case err != nil:
		return putResult{}, fmt.Errorf("read sale %s: %w", id, err)
	case latest.Lifecycle == to:
		return putResult{version: latest}, nil
	case latest.Lifecycle == sale.Closed:
		return putResult{}, fmt.Errorf("sale %s is closed, which is final", id)
	}
	next := sale.Version{Sale: id, Lifecycle: to, Config: latest.Config, Actor: cliActor(), Reason: reason}
	v, err := l.PutVersion(ctx, next, latest.Version)
	if err != nil {
		return putResult{}, fmt.Errorf("write sale %s: %w", id, err)
	}
	return putResult{version: v, changed: true}, nil
}

// waitPoll is the time between two looks at a version.
const waitPoll = 50 * time.Millisecond

// waitApplied waits until a version is applied or refused, at most a time; it returns the version as
// it then stands.
func waitApplied(ctx context.Context, l ledger.Ledger, v sale.Version, most time.Duration) (sale.Version, error) {
	for until := time.Now().Add(most); v.Status == sale.VersionPending && time.Now().Before(until); {
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(waitPoll):
		}
		all, err := l.Versions(ctx, v.Sale)
		if err != nil {
			return v, fmt.Errorf("read sale %s: %w", v.Sale, err)
		}
		for _, other := range all {
			if other.Version == v.Version {
				v = other
			}
		}
	}
	return v, nil
}
