package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"

	"flashgate/challenge"
	"flashgate/configs"
	"flashgate/ledger"
	"flashgate/sale"
)

const (
	applyPollFirst = 10 * time.Millisecond // of the ledger, for a version to be applied
	applyPollMost  = 100 * time.Millisecond
	lifecycleTries = 5 // when others change the sale at the same time
)

// putSale stores a version in the ledger, which the reconciler applies to Redis, and waits for it.
func (g *Gateway) putSale(r *request) error {
	id := r.param("sale")
	if sale.CheckSaleID(id) != "" {
		return refuse(codeUnknownSale, "No sale has the id %s.", printable(id))
	}
	config, err := r.saleConfig(g, id)
	if err != nil {
		return err
	}
	current, err := g.latest(id)
	if errors.Is(err, ledger.ErrNotFound) {
		current, err = sale.Version{}, nil
	}
	if err != nil {
		return err
	}
	if err := r.precondition(&current); err != nil {
		return err
	}
	var before *sale.Config
	if current.Version > 0 {
		before = &current.Config
	}
	config.Resolve(g.store.Now(), before)
	if errs := config.Validate(); len(errs) > 0 {
		return invalid(errs...)
	}
	next := sale.Version{Sale: id, Lifecycle: sale.Live, Config: config, Actor: r.actor()}
	status := fiber.StatusCreated
	if current.Version > 0 {
		status, next.Lifecycle = fiber.StatusOK, current.Lifecycle
		if current.Lifecycle == sale.Closed {
			return refuse(codeSaleEnded, "The sale is closed for good.")
		}
		if p := g.locked(&current, &config); p != nil {
			return p
		}
	}
	stored, err := g.putVersion(next, current.Version)
	if errors.Is(err, ledger.ErrVersionMismatch) {
		return refuse(codeVersionMismatch, "The sale was changed at the same moment.")
	}
	if err != nil {
		return err
	}
	if status == fiber.StatusCreated {
		r.setHeader(fiber.HeaderLocation, adminSales+"/"+id)
	}
	return g.whenApplied(r, status, stored)
}

// saleConfig reads a body that is a sale, its times not yet resolved.
func (r *request) saleConfig(g *Gateway, id string) (sale.Config, error) {
	b, err := r.body(g.opts.SaleBodyMax)
	if err != nil {
		return sale.Config{}, err
	}
	config, err := configs.DecodeSaleJSON(b)
	var wrong *configs.Error
	if errors.As(err, &wrong) {
		if wrong.Malformed {
			return config, refuse(codeMalformedBody, "%s", wrong.Problems[0].Detail)
		}
		return config, invalid(wrong.Fields()...)
	}
	if err != nil {
		return config, err
	}
	if config.Sale != id {
		return config, invalid(sale.FieldError{Pointer: "/sale", Detail: fmt.Sprintf("must be %s, as in the path", id)})
	}
	if errs := g.providersWithoutKeys(&config); len(errs) > 0 {
		return config, invalid(errs...)
	}
	return config, nil
}

// providersWithoutKeys names challenges of a sale that nobody could be asked here.
func (g *Gateway) providersWithoutKeys(config *sale.Config) (errs []sale.FieldError) {
	if config.Challenge == nil {
		return nil
	}
	for i, name := range config.Challenge.Providers {
		has := func(p challenge.Provider) bool { return p.Name() == name }
		if name != sale.ProofOfWork && !slices.ContainsFunc(g.opts.Providers, has) {
			errs = append(errs, sale.FieldError{
				Pointer: fmt.Sprintf("/challenge/providers/%d", i),
				Detail:  fmt.Sprintf("has no keys here: set challenge.%s.site_key and secret of the servers", name),
			})
		}
	}
	return errs
}

// precondition compares If-Match and If-None-Match with the current version; version 0 is none.
func (r *request) precondition(current *sale.Version) error {
	match, noneMatch := r.header(fiber.HeaderIfMatch), r.header(fiber.HeaderIfNoneMatch)
	exists := current.Version > 0
	switch {
	case noneMatch != "" && exists && (noneMatch == "*" || hasETag(noneMatch, current.Version)):
		return refuse(codeVersionMismatch, "The sale exists, in version %d.", current.Version)
	case match == "" && exists:
		return refuse(codeIfMatchRequired, "The sale exists: send the ETag that was read as If-Match.")
	case match != "" && !exists:
		return refuse(codeVersionMismatch, "There is no such sale; to create it leave If-Match out.")
	case match != "" && match != "*" && !hasETag(match, current.Version):
		return refuse(codeVersionMismatch, "The sale is at version %d; its ETag is that in quotes.", current.Version)
	}
	return nil
}

func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// hasETag compares strongly: a weak tag in the list is never equal.
func hasETag(list string, version int64) bool {
	for tag := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(tag) == etag(version) {
			return true
		}
	}
	return false
}

// locked says at once what the shard would refuse later, as far as can be known now: the shard has
// the last word.
func (g *Gateway) locked(current *sale.Version, next *sale.Config) *problem {
	fields := sale.Diff(&current.Config, next).Locked
	if len(fields) == 0 {
		return nil
	}
	a, err := g.stock(current.Sale, current.Config.Items[0].SKU)
	if known := err == nil; !known || sale.Moment(a.Head.NowMs) < a.OpensAt {
		return nil
	}
	p := refuse(codeFieldLocked, "The sale has opened at %s.", a.OpensAt)
	for _, at := range fields {
		p.errs = append(p.errs, sale.FieldError{Pointer: at, Detail: "may not change once the sale has opened"})
	}
	return p
}

func (g *Gateway) latest(id string) (v sale.Version, err error) {
	err = g.fromLedger(func(ctx context.Context) (err error) {
		v, err = g.ledger.LatestVersion(ctx, id)
		return err
	})
	return v, err
}

func (g *Gateway) putVersion(next sale.Version, expect int64) (stored sale.Version, err error) {
	err = g.fromLedger(func(ctx context.Context) (err error) {
		stored, err = g.ledger.PutVersion(ctx, next, expect)
		return err
	})
	return stored, err
}

// whenApplied answers once the ledger says that the shard took the version, or refused it, or with
// 202 when neither is said in time.
func (g *Gateway) whenApplied(r *request, status int, v sale.Version) error {
	deadline := time.Now().Add(g.opts.ConfirmWait)
	for wait := applyPollFirst; v.Status == sale.VersionPending && time.Now().Before(deadline); wait *= 2 {
		<-time.After(min(wait, applyPollMost, time.Until(deadline)))
		now, err := g.version(v.Sale, v.Version)
		if err != nil {
			break // It is stored: that the ledger cannot be asked now is what 202 says.
		}
		v = now
	}
	// Whoever comes later sees it at the next refresh.
	_, _ = g.catalog.refresh(g.base, v.Sale)
	switch v.Status {
	case sale.VersionRejected:
		return rejected(&v)
	case sale.VersionPending:
		r.setHeader(fiber.HeaderETag, etag(v.Version))
		return r.json(fiber.StatusAccepted, Applying{State: "applying"})
	}
	return r.version(status, &v)
}

// version reads one version, by the short way when it is the latest.
func (g *Gateway) version(id string, number int64) (sale.Version, error) {
	v, err := g.latest(id)
	if err == nil && v.Version == number {
		return v, nil
	}
	if err != nil && !errors.Is(err, ledger.ErrNotFound) {
		return v, err
	}
	var all []sale.Version
	err = g.fromLedger(func(ctx context.Context) (err error) {
		all, err = g.ledger.Versions(ctx, id)
		return err
	})
	for i := range all {
		if all[i].Version == number {
			return all[i], nil
		}
	}
	return sale.Version{}, errors.Join(err, ledger.ErrNotFound)
}

// rejected tells why the shard would not take a version: the refusal begins with the code.
func rejected(v *sale.Version) *problem {
	reason, detail, _ := strings.Cut(v.Refusal, ": ")
	switch code(reason) {
	case codeFieldLocked:
		p := refuse(codeFieldLocked, "%s", detail)
		for word := range strings.FieldsSeq(detail) {
			if strings.HasPrefix(word, "/") {
				p.errs = append(p.errs, sale.FieldError{
					Pointer: strings.TrimSuffix(word, ","), Detail: "may not change once the sale has opened",
				})
			}
		}
		return p
	case codeInsufficientStock:
		return refuse(codeInsufficientStock, "%s", detail).member("lines", []ShortLine{}).member("waitlist", false)
	default:
		return refuse(codeVersionMismatch, "The version was refused; the sale was changed at the same moment.")
	}
}

// version answers with a version and its ETag.
func (r *request) version(status int, v *sale.Version) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.setHeader(fiber.HeaderETag, etag(v.Version))
	return r.raw(status, b)
}

// changeLifecycle pauses, resumes or closes. A sale that is so already answers as a replay, once
// that is applied.
func (g *Gateway) changeLifecycle(r *request, verb string, to sale.Lifecycle) error {
	var body ReasonRequest
	if err := r.decode(g, &body); err != nil {
		return err
	}
	return g.changeSale(r, verb, body.Reason, func(next *sale.Version) (bool, error) {
		same := next.Lifecycle == to
		next.Lifecycle = to
		return same, nil
	})
}

// changeSale makes a version of a sale that edit has changed; edit says when there is nothing to change.
func (g *Gateway) changeSale(r *request, verb, reason string, edit func(*sale.Version) (same bool, err error)) error {
	id := r.param("sale")
	for range lifecycleTries {
		current, err := g.known(id)
		if err != nil {
			return err
		}
		if current.Lifecycle == sale.Closed {
			return refuse(codeSaleEnded, "The sale is closed for good.")
		}
		next := sale.Version{
			Sale: id, Lifecycle: current.Lifecycle, Config: current.Config, Actor: r.actor(), Reason: reason,
		}
		same, err := edit(&next)
		if err != nil {
			return err
		}
		if same {
			r.replayed()
			return g.whenApplied(r, fiber.StatusOK, current)
		}
		stored, err := g.putVersion(next, current.Version)
		if errors.Is(err, ledger.ErrVersionMismatch) {
			continue
		}
		if err != nil {
			return err
		}
		g.log.Info("sale "+verb, "request_id", string(r.id), "sale", id, "version", stored.Version, "actor", next.Actor)
		return g.whenApplied(r, fiber.StatusOK, stored)
	}
	return refuse(codeVersionMismatch, "Others change the sale at the same time.")
}

// known is latest for a sale that must exist.
func (g *Gateway) known(id string) (sale.Version, error) {
	if sale.CheckSaleID(id) != "" {
		return sale.Version{}, refuse(codeUnknownSale, "No sale has the id %s.", printable(id))
	}
	v, err := g.latest(id)
	if errors.Is(err, ledger.ErrNotFound) {
		return v, refuse(codeUnknownSale, "There is no sale %s.", id)
	}
	return v, err
}

func (g *Gateway) getSale(r *request) error {
	v, err := g.known(r.param("sale"))
	if err != nil {
		return err
	}
	return r.version(fiber.StatusOK, &v)
}

func (g *Gateway) listSales(r *request) error {
	var all []sale.Version
	err := g.fromLedger(func(ctx context.Context) (err error) {
		all, err = g.ledger.Sales(ctx)
		return err
	})
	if err != nil {
		return err
	}
	out := SaleList{Sales: make([]SaleSummary, len(all))}
	for i := range all {
		v, c := &all[i], &all[i].Config
		out.Sales[i] = SaleSummary{
			Sale: v.Sale, Title: c.Title, Version: v.Version, Lifecycle: string(v.Lifecycle), State: g.phase(v),
			Status: string(v.Status), OpensAt: c.OpensAt.String(), ClosesAt: c.ClosesAt.String(), Items: len(c.Items),
		}
	}
	return r.json(fiber.StatusOK, out)
}

func (g *Gateway) listVersions(r *request) error {
	id := r.param("sale")
	if _, err := g.known(id); err != nil {
		// A sale whose only version was rejected has versions all the same.
		var p *problem
		if !errors.As(err, &p) || sale.CheckSaleID(id) != "" {
			return err
		}
	}
	var all []sale.Version
	err := g.fromLedger(func(ctx context.Context) (err error) {
		all, err = g.ledger.Versions(ctx, id)
		return err
	})
	if errors.Is(err, ledger.ErrNotFound) {
		return refuse(codeUnknownSale, "There is no sale %s.", id)
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(VersionList{Versions: all})
	if err != nil {
		return err
	}
	return r.raw(fiber.StatusOK, b)
}
